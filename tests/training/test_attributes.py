"""What an algorithm keeps in plain attributes is saved, or a checkpoint says that it is not."""

import collections
import enum
import io
import itertools
import random
import types

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as npst
from torch import nn

from domainbed.algorithms.base import Algorithm
from domainbed.training.attributes import KeptAttributes


class Ring:
    """A plain object with a state, without `state_dict`."""

    def __init__(self):
        self.items = []
        self.count = 0


class Counting(nn.Module):
    """A module of a plugin that counts its calls, and has a buffer that its state dict lacks."""

    def __init__(self):
        super().__init__()
        self.calls = 0
        self.layer = nn.Linear(2, 2)
        self.register_buffer("seen", torch.zeros(2), persistent=False)
        self.register_buffer("centre", None)


class Keeper(Algorithm):
    """An algorithm that keeps something of every kind, each of which the next update depends on."""

    TRANSIENT = ("cache",)

    def __init__(self):
        super().__init__((2,), 2, 3, {})
        self.network = Counting()
        self.count, self.phase, self.ratio, self.device = 0, "warm-up", 0.5, torch.device("cpu")
        self.average = torch.zeros(3)
        self.queue = collections.deque(maxlen=3)
        self.averages, self.seen, self.pairs = {}, set(), [[0, ()]]
        self.by_parameter = dict.fromkeys(self.parameters(), 0)
        self.layers = [self.network.layer, self.network]
        self.row = self.network.layer.weight.detach()[0]
        self.weight = torch.ones(2, requires_grad=True)
        self.optimizer = torch.optim.Adam([self.weight], lr=0.1)
        self.optimizers = {"second": torch.optim.SGD([nn.Parameter(torch.ones(2))], momentum=0.9)}
        self.table = np.zeros((2, 3))
        self.generators = [random.Random(0), np.random.RandomState(0), np.random.default_rng(0)]
        self.torch_generator = torch.Generator().manual_seed(0)
        self.ring, self.options = Ring(), types.SimpleNamespace(temperature=1.0)
        self.same_ring, self.function = self.ring, len
        self.counts = collections.defaultdict(int)
        self.unused = object()

    def update(self, minibatches=(), unlabeled=None):
        self.count += 1
        self.cache = object()
        draw = self.generators[0].random() + self.generators[1].rand() + self.generators[2].random()
        draw += float(torch.rand((), generator=self.torch_generator))
        self.phase = "annealing" if self.count > 2 else self.phase
        self.average = 0.9 * self.average + draw
        self.queue.append(self.average.half())
        self.averages.setdefault("a", np.float64(draw))
        self.averages[self.count] = {
            "nested": (complex(draw, 1), b"\x00\xff", frozenset([1]), torch.Size([2]))
        }
        self.seen.add(("x", self.count))
        self.pairs[0][0] += self.count
        self.pairs.append(self.pairs[0])
        self.same_pairs = self.pairs
        self.by_parameter[self.network.layer.weight] += 1
        self.layers.reverse()
        self.table[0] += draw
        self.ring.items.append(self.count)
        self.same_ring.count += len(self.same_pairs)
        self.options.temperature *= 0.9
        self.counts[self.phase] += 1
        self.network.calls += 1
        self.network.seen += draw
        self.network.centre = torch.full((2,), draw)
        for optimizer in (self.optimizer, *self.optimizers.values()):
            for parameter in optimizer.param_groups[0]["params"]:
                parameter.grad = draw * parameter.detach()
            optimizer.step()
        with torch.no_grad():
            self.network.layer.weight += (
                self.row.sum() + self.average[0] + self.weight.sum() + self.ring.count
            )
        if self.count == 2:
            del self.ratio


def through_a_file(content):
    buffer = io.BytesIO()
    torch.save(content, buffer)
    return torch.load(io.BytesIO(buffer.getvalue()), weights_only=True)


def resumed(cls, updates):
    """A new algorithm with the state of one that has done some updates, and the latter."""
    first = cls()
    kept = KeptAttributes(first)
    for _ in range(updates):
        first.update()
    state = through_a_file({"algorithm": first.training_state(), "attributes": kept.state_dict()})
    second = cls()
    attributes = KeptAttributes(second)
    attributes.load_state_dict(state["attributes"])
    second.load_training_state(state["algorithm"])
    return first, second


def equal(a, b):
    if isinstance(a, torch.Tensor):
        return torch.equal(a, b) and a.dtype == b.dtype and a.requires_grad == b.requires_grad
    if isinstance(a, np.ndarray):
        return a.dtype == b.dtype and np.array_equal(a, b)
    if isinstance(a, Ring | types.SimpleNamespace):
        return equal(vars(a), vars(b))
    if isinstance(a, dict):
        return type(a) is type(b) and equal(list(a.values()), list(b.values()))
    if isinstance(a, list | tuple | collections.deque):
        return type(a) is type(b) and len(a) == len(b) and all(map(equal, a, b))
    if isinstance(
        a, random.Random | np.random.RandomState | np.random.Generator | nn.Module | torch.Generator
    ):
        return type(a) is type(b)
    return type(a) is type(b) and a == b


@pytest.mark.parametrize("updates", [1, 2, 4])
def test_an_algorithm_goes_on_with_all_that_it_kept(updates):
    first, second = resumed(Keeper, updates)
    for _ in range(3):
        first.update()
        second.update()
    left_out = {"cache", "unused", "optimizer", "optimizers"}
    assert vars(first).keys() == vars(second).keys()
    for name in vars(first).keys() - left_out - set(vars(nn.Module())):
        assert equal(getattr(first, name), getattr(second, name)), name
    assert all(map(torch.equal, first.state_dict().values(), second.state_dict().values()))
    assert torch.equal(first.network.seen, second.network.seen)
    assert second.network.calls == updates + 3


def test_references_to_one_object_remain_references_to_one():
    _, second = resumed(Keeper, 2)
    assert second.same_ring is second.ring
    assert second.same_pairs is second.pairs
    assert second.pairs[0] is second.pairs[-1]
    assert second.optimizer.param_groups[0]["params"][0] is second.weight
    assert second.layers == [second.network.layer, second.network]
    assert second.row.data_ptr() == second.network.layer.weight.data_ptr()
    assert list(second.by_parameter) == list(second.parameters())


def test_only_what_changed_is_saved():
    algorithm = Keeper()
    kept = KeptAttributes(algorithm)
    nothing = kept.state_dict()
    # States of optimizers are not compared.
    assert [name for _, name, _ in nothing["changed"]] == ["optimizers"]
    assert not nothing["removed"]
    assert not nothing["buffers"]
    algorithm.count += 1
    algorithm.table[1, 1] = 1e-300
    changed = {name for _, name, _ in kept.state_dict()["changed"]}
    assert changed == {"optimizers", "count", "table"}


class Stage(enum.Enum):
    FIRST = 1
    SECOND = 2


Pair = collections.namedtuple("Pair", "a b")


def replace(algorithm, value):
    algorithm.thing = value


UNSAVED = {
    "an object made later": (None, lambda a: replace(a, Ring())),
    "a function made later": (None, lambda a: replace(a, lambda: 0)),
    "an enumeration": (Stage.FIRST, lambda a: replace(a, Stage.SECOND)),
    "a tuple with names": (Pair(0, 0), lambda a: replace(a, Pair(0, 1))),
    "an iterator": (itertools.count(), lambda a: next(a.thing)),
    "a generator": ((i for i in range(3)), lambda a: next(a.thing)),
    "objects in an array": (np.array([{}, 1]), lambda a: a.thing[0].update(x=1)),
    "a sparse tensor": (torch.eye(2).to_sparse(), lambda a: a.thing.mul_(2)),
    "an optimizer made later": (None, lambda a: replace(a, torch.optim.SGD([nn.Parameter(torch.ones(1))]))),
    "a module made later": (None, lambda a: setattr(a, "thing", nn.Linear(1, 1))),
    "a parameter made later": (None, lambda a: a.register_parameter("thing2", nn.Parameter(torch.ones(1)))),
    "a module removed": (nn.Linear(1, 1), lambda a: delattr(a, "thing")),
}


@pytest.mark.parametrize("case", UNSAVED)
def test_what_cannot_be_saved_is_named_and_only_once_it_has_changed(case):
    before, change = UNSAVED[case]
    algorithm = Algorithm((2,), 2, 3, {})
    algorithm.thing = before
    kept = KeptAttributes(algorithm)
    assert kept.state_dict()["unsaved"] == []
    change(algorithm)
    (line,) = through_a_file(kept.state_dict())["unsaved"]
    assert line.startswith("thing")


atoms = (
    st.none() | st.booleans() | st.integers() | st.floats() | st.text() | st.binary() | st.complex_numbers()
)
arrays = npst.arrays(npst.scalar_dtypes(), npst.array_shapes(min_dims=0, max_dims=2, min_side=0, max_side=3))
hashables = atoms | st.tuples(atoms, atoms)
values = st.recursive(
    atoms | arrays | arrays.map(lambda array: array.reshape(-1)[0] if array.size else None),
    lambda inner: st.one_of(
        st.lists(inner, max_size=3),
        st.dictionaries(hashables, inner, max_size=3),
        st.lists(inner, max_size=3).map(tuple),
        st.lists(inner, max_size=3).map(lambda items: collections.deque(items, 3)),
        st.frozensets(hashables, max_size=3),
        st.sets(hashables, max_size=3),
        st.dictionaries(hashables, inner, max_size=3).map(collections.OrderedDict),
    ),
    max_leaves=8,
)


def shown(value):
    """`value` as text, with the items of sets in order."""
    if isinstance(value, set | frozenset):
        return f"{type(value)} {sorted(map(shown, value))}"
    if isinstance(value, dict):
        return f"{type(value)} {[(shown(key), shown(item)) for key, item in value.items()]}"
    if isinstance(value, list | tuple | collections.deque):
        return f"{type(value)} {list(map(shown, value))}"
    return f"{type(value)} {value!r}"


@settings(max_examples=30, deadline=None)
@given(before=values, after=values)
def test_any_value_is_restored(before, after):
    first, second = Algorithm((2,), 2, 3, {}), Algorithm((2,), 2, 3, {})
    first.thing = second.thing = before
    kept, other = KeptAttributes(first), KeptAttributes(second)
    first.thing = after
    state = through_a_file(kept.state_dict())
    assert state["unsaved"] == []
    other.load_state_dict(state)
    assert shown(second.thing) == shown(after)

import random

import numpy as np
import pytest
import torch
from torch.utils.data import TensorDataset

from domainbed.datasets import get_dataset_class
from domainbed.datasets.splitting import SplitDataset
from domainbed.training.grouping import group_minibatches
from domainbed.training.minibatches import EnvironmentSampler, Minibatches, is_in_memory, load_minibatch


class Augmented:
    """Samples that draw from all three generators, like an augmented image."""

    targets = list(range(20))

    def __len__(self):
        return 20

    def __getitem__(self, index):
        noise = torch.rand(2) + float(np.random.rand())
        return torch.full((2,), float(index)) + noise, index


def sampler(sampling, size=10, batch_size=4, seeds=(0, 0), weights=None):
    return EnvironmentSampler(size, batch_size, seeds, sampling, weights)


@pytest.mark.parametrize("sampling", ["replacement", "epochs"])
def test_a_minibatch_is_a_function_of_seed_environment_and_step(sampling):
    again = [sampler(sampling).indices(step).tolist() for step in (7, 3, 7)]
    assert again[0] == again[2]
    assert again[0] != again[1]
    assert sampler(sampling, seeds=(1, 0)).indices(7).tolist() != again[0]
    assert sampler(sampling, seeds=(0, 1)).indices(7).tolist() != again[0]


def test_epochs_show_every_sample_once_and_drop_an_incomplete_minibatch():
    epochs = sampler("epochs")
    for first in (0, 2, 4):
        seen = np.concatenate([epochs.indices(step) for step in (first, first + 1)])
        assert len(set(seen.tolist())) == 8
    assert epochs.indices(0).tolist() != epochs.indices(2).tolist()


def test_replacement_draws_samples_uniformly_or_by_weight():
    counts = np.bincount(
        np.concatenate([sampler("replacement").indices(s) for s in range(2500)]), minlength=10
    )
    assert abs(counts - 1000).max() < 150
    weights = np.array([3.0] + [1.0] * 9)
    drawn = np.concatenate([sampler("replacement", weights=weights).indices(s) for s in range(2500)])
    assert np.bincount(drawn)[0] == pytest.approx(2500, abs=200)


@pytest.mark.parametrize("sampling", ["replacement", "epochs"])
def test_a_small_environment_has_smaller_minibatches(sampling):
    """Upstream hangs in this case."""
    assert len(sampler(sampling, size=3, batch_size=64).indices(5)) == 3


def test_minibatches_from_memory_equal_those_read_sample_by_sample():
    emoji = get_dataset_class("EmojiStyles")(None, [], {})[1]
    part = SplitDataset(SplitDataset(emoji, list(range(100, 200))), [5, 90, 5])
    x, y = load_minibatch(part, np.array([2, 1]), (0,))
    assert is_in_memory(part)
    assert torch.equal(x, torch.stack([part[2][0], part[1][0]]))
    assert y.tolist() == [int(part[2][1]), int(part[1][1])]
    tensors = TensorDataset(torch.arange(12.0).view(6, 2), torch.arange(6))
    x, y = load_minibatch(SplitDataset(tensors, [3, 1, 0]), np.array([1, 0]), (0,))
    assert y.tolist() == [1, 3]
    assert x[0].tolist() == [2.0, 3.0]


def test_augmentation_depends_on_the_counters_and_leaves_global_generators_unchanged():
    part = SplitDataset(Augmented(), list(range(20)))
    assert not is_in_memory(part)
    torch.manual_seed(0)
    np.random.seed(0)
    expected_next = (torch.rand(1), np.random.rand())
    torch.manual_seed(0)
    np.random.seed(0)
    first, _ = load_minibatch(part, np.array([3, 3]), (1, 2))
    assert (torch.rand(1), np.random.rand()) == expected_next
    again, _ = load_minibatch(part, np.array([3, 3]), (1, 2))
    other, _ = load_minibatch(part, np.array([3, 3]), (1, 3))
    assert torch.equal(first, again)
    assert not torch.equal(first, other)
    assert not torch.equal(first[0], first[1])


class OneNumber(Augmented):
    """Each sample is one number from one of the generators."""

    def __init__(self, generator):
        self.draw = {"python": random.random, "numpy": np.random.rand, "torch": lambda: torch.rand(())}[
            generator
        ]

    def __getitem__(self, index):
        return torch.tensor([float(self.draw())], dtype=torch.float64), 0


@pytest.mark.parametrize("generator", ["python", "numpy", "torch"])
def test_no_draws_repeat_within_a_minibatch_nor_between_steps(generator):
    part = SplitDataset(OneNumber(generator), list(range(20)))
    drawn = [load_minibatch(part, np.zeros(50, dtype=int), (1, step))[0] for step in range(6)]
    assert len(set(torch.cat(drawn).flatten().tolist())) == 300


@pytest.mark.parametrize("num_workers", [1, 2])
def test_workers_change_no_minibatch(prefetcher, num_workers):
    parts = [SplitDataset(Augmented(), list(range(20))), SplitDataset(Augmented(), list(range(5)))]
    samplers = [sampler("replacement", len(part), seeds=(4, i)) for i, part in enumerate(parts)]
    minibatches = Minibatches(parts, samplers, n_steps=6)
    alone, helped = (
        list(prefetcher({"labeled": minibatches}, n).read("labeled", range(6))) for n in (0, num_workers)
    )
    assert len(alone) == len(helped) == 6
    for a, b in zip(alone, helped, strict=True):
        for (xa, ya), (xb, yb) in zip(a, b, strict=True):
            assert torch.equal(xa, xb)
            assert torch.equal(ya, yb)


class Drawn:
    """Each sample is one random number."""

    targets = [0] * 100

    def __len__(self):
        return 100

    def __getitem__(self, index):
        return torch.rand(1), index


def test_numbers_drawn_from_a_seed_never_change():
    """Results of earlier releases can be reproduced only if the numbers of `Purpose` stay."""
    assert sampler("replacement", size=100, seeds=(3, 1)).indices(2).tolist() == [28, 23, 66, 87]
    assert sampler("epochs", size=100, seeds=(3, 1)).indices(27).tolist() == [11, 92, 48, 29]
    samplers = [sampler("replacement", size=100, batch_size=2, seeds=(3, e)) for e in range(3)]
    parts = [SplitDataset(Drawn(), list(range(100))) for _ in samplers]
    minibatches = Minibatches(parts, samplers, n_steps=10)
    drawn = {
        name: group_minibatches(name, minibatches, seed=3)[4]
        for name in ("domain", "single_domain", "pooled")
    }
    assert {name: [y.tolist() for _, y in each] for name, each in drawn.items()} == {
        "domain": [[42, 90], [42, 45], [42, 28]],
        "single_domain": [[20, 15], [75, 73], [8, 23]],
        "pooled": [[90, 42], [45, 28], [42, 42]],
    }
    x = torch.cat([x for x, _ in drawn["domain"]]).flatten().tolist()
    assert x == pytest.approx([0.907332, 0.739441, 0.191784, 0.905604, 0.579087, 0.972099], abs=1e-6)

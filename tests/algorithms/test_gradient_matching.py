"""IGA and Fish, and the arithmetic of dictionaries of tensors."""

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays
from torch import nn, optim

from domainbed import networks
from domainbed.algorithms import get_algorithm_class
from domainbed.algorithms.gradient_matching import Fish, ParamDict, gradient_spread
from domainbed.hparams_registry import default_hparams

G = torch.tensor(
    [[3, -4, -1, 0, -2, 0, -2, 3], [1, 1, -2, 0, -1, 3, 1, -3], [2, 0, -1, 0, 4, -3, 2, -2]],
    dtype=torch.float64,
)


def make(name, k=3, **overrides):
    torch.manual_seed(0)
    hparams = default_hparams(name, "Debug28") | {"mlp_width": 6} | overrides
    return get_algorithm_class(name)((4,), 3, k, hparams)


def minibatches(sizes=(6, 4, 5)):
    torch.manual_seed(1)
    return [(torch.randn(n, 4), torch.randint(3, (n,))) for n in sizes]


def weights(algorithm):
    return torch.cat([parameter.detach().flatten() for parameter in algorithm.network.parameters()])


def test_igas_penalty_on_a_worked_example():
    assert gradient_spread([[g] for g in G]).item() == pytest.approx(84.666667)
    assert gradient_spread([[g[:3], g[3:]] for g in G]).item() == pytest.approx(84.666667)


@settings(deadline=None)
@given(
    st.tuples(st.integers(1, 5), st.integers(1, 8))
    .flatmap(lambda shape: arrays(np.float64, shape, elements=st.floats(-100, 100)))
    .map(torch.from_numpy)
)
def test_igas_penalty_is_the_trace_minus_the_mean_row_sum_of_the_gram_matrix(stack):
    gram = stack @ stack.T
    expected = gram.trace() - gram.sum() / len(stack)
    torch.testing.assert_close(gradient_spread([[g] for g in stack]), expected, rtol=1e-9, atol=1e-7)


def test_igas_gradient_is_that_of_the_whole_loss(float64):
    """Here the mean gradient is that of the mean loss, and is differentiated too."""
    algorithm, batches = make("IGA", penalty=10.0), minibatches()
    parameters = list(algorithm.network.parameters())
    losses = [F.cross_entropy(algorithm.predict(x), y) for x, y in batches]
    mean_loss = torch.stack(losses).mean()
    flat = [
        torch.cat([g.flatten() for g in torch.autograd.grad(loss, parameters, create_graph=True)])
        for loss in (*losses, mean_loss)
    ]
    penalty = sum((g - flat[-1]).square().sum() for g in flat[:-1])
    expected = torch.autograd.grad(mean_loss + 10.0 * penalty, parameters)
    returned = algorithm.update(batches)
    assert returned == pytest.approx({"loss": mean_loss.item(), "penalty": penalty.item()})
    for parameter, gradient in zip(parameters, expected, strict=True):
        torch.testing.assert_close(parameter.grad, gradient, rtol=1e-9, atol=1e-12)


def test_igas_penalty_lowers_the_spread_of_the_gradients():
    spreads = []
    for penalty in (0.0, 100.0):
        algorithm, batches = make("IGA", penalty=penalty, lr=0.01), minibatches()
        spreads.append([algorithm.update(batches)["penalty"] for _ in range(50)])
    assert spreads[0][0] == spreads[1][0]
    assert spreads[1][-1] < 0.5 * spreads[0][-1]


def test_iga_has_no_penalty_for_equal_environments():
    (batch,) = minibatches((6,))
    iga, erm = make("IGA"), make("ERM")
    assert iga.update([batch] * 3)["penalty"] == pytest.approx(0, abs=1e-12)
    erm.update([batch] * 3)
    torch.testing.assert_close(weights(iga), weights(erm), rtol=1e-4, atol=1e-5)


class Quadratic(nn.Module):
    """Losses L_k = 1/2 sum_d h_kd (theta_d - a_kd)^2 of three environments."""

    H = torch.tensor([[1.0, 4], [2, 1], [3, 0.5]])
    A = torch.tensor([[0.0, 0], [1, -1], [-1, 2]])

    def __init__(self):
        super().__init__()
        self.theta = nn.Parameter(torch.ones(2))

    def forward(self, k):
        return (self.H[k] * (self.theta - self.A[k]).square()).sum() / 2


class QuadraticFish(Fish):
    def _loss(self, x, y):
        return self.predict(x)


def test_fish_on_the_quadratics():
    fish = QuadraticFish((4,), 3, 3, default_hparams("Fish", "Debug28"))
    fish.network = Quadratic()
    fish.optimizer = optim.SGD(fish.network.parameters(), lr=0.1)
    fish.update([(k, None) for k in range(3)])
    assert fish.network.theta.tolist() == pytest.approx([0.672, 0.759], abs=5e-4)


def test_fish_moves_a_fraction_of_adams_way_and_keeps_its_moments():
    """Against a clone that is stepped with one optimizer throughout."""
    fish, batches = make("Fish", meta_lr=0.1), minibatches()
    clone = make("Fish")
    for _ in range(3):
        clone.network.load_state_dict(fish.network.state_dict())
        before = weights(fish)
        for x, y in batches:
            loss = F.cross_entropy(clone.predict(x), y)
            clone.optimizer.zero_grad()
            loss.backward()
            clone.optimizer.step()
        assert fish.update(batches) == {"loss": pytest.approx(loss.item())}
        torch.testing.assert_close(weights(fish), before + 0.1 * (weights(clone) - before))
    steps = {int(entry["step"]) for entry in fish.optimizer.state_dict()["state"].values()}
    assert steps == {9}


def test_fish_loads_upstreams_state_dicts_and_ignores_their_inner_network():
    fish, other = make("Fish"), make("Fish")
    fish.update(minibatches())
    state = fish.state_dict()
    assert all(name.startswith("network.net.") for name in state)
    clone = {f"network_inner.{name.removeprefix('network.')}": value + 1 for name, value in state.items()}
    given = state | clone
    other.load_state_dict(given)
    assert torch.equal(weights(other), weights(fish))
    assert given.keys() == state.keys() | clone.keys()
    nn.ModuleDict({"fish": other}).load_state_dict({f"fish.{name}": value for name, value in given.items()})
    with pytest.raises(RuntimeError, match=r"Unexpected key.*network_outer"):
        other.load_state_dict(state | {"network_outer.net": torch.zeros(1)})


def test_fish_keeps_its_dtype():
    fish = make("Fish").double()
    fish.update([(x.double(), y) for x, y in minibatches()])
    assert all(value.dtype == torch.float64 for value in fish.state_dict().values())


def test_upstream_draws_are_those_of_a_new_network_and_do_not_change_weights():
    batches = minibatches()
    plain, switched = make("Fish"), make("Fish", upstream_draws=True)
    torch.manual_seed(5)
    plain.update(batches)
    undrawn = torch.rand(3)
    torch.manual_seed(5)
    switched.update(batches)
    drawn = torch.rand(3)
    torch.manual_seed(5)
    assert torch.equal(torch.rand(3), undrawn)
    torch.manual_seed(5)
    networks.WholeFish((4,), 3, switched.hparams)
    assert torch.equal(torch.rand(3), drawn)
    assert torch.equal(weights(plain), weights(switched))


# Dictionaries of tensors


def pair():
    return (
        ParamDict(b=torch.tensor([1.0, 2.0]), a=torch.tensor(3.0)),
        {"a": torch.tensor(4.0), "b": torch.tensor([8.0, 5.0]), "more": torch.tensor(9.0)},
    )


def test_operations_with_a_dictionary_keep_the_left_operands_keys():
    left, right = pair()
    for result, expected in (
        (left + right, [9, 7, 7]),
        (left - right, [-7, -3, -1]),
        (left * right, [8, 10, 12]),
        (left / right, [0.125, 0.4, 0.75]),
        (-left, [-1, -2, -3]),
    ):
        assert isinstance(result, ParamDict)
        assert list(result) == ["b", "a"]
        assert [*result["b"].tolist(), result["a"].item()] == pytest.approx(expected)


def test_operations_with_a_number_on_either_side():
    left, _ = pair()
    for result, expected in (
        (left + 1, [2, 3, 4]),
        (1 + left, [2, 3, 4]),
        (left - 1, [0, 1, 2]),
        (1 - left, [0, -1, -2]),
        (left * 2, [2, 4, 6]),
        (2 * left, [2, 4, 6]),
        (left / 2, [0.5, 1, 1.5]),
    ):
        assert [*result["b"].tolist(), result["a"].item()] == expected


def test_interpolation_between_dictionaries():
    left, right = pair()
    way = ParamDict({name: right[name] for name in left}) - left
    assert (left + 0.5 * way)["b"].tolist() == [4.5, 3.5]

"""Golden vectors and invariants of GENIE's optimizer, and how the algorithm uses it."""

import itertools

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import nn

from domainbed_gs.algorithms.genie import GenieOptimizer, preconditioned, relative_variance

RUNS = ("preconditioning_only", "noise_and_mask_given", "weight_decay_optimizer_class")


def tensor(values):
    return torch.tensor(values, dtype=torch.float64)


def parameters(values):
    return [nn.Parameter(tensor(each)) for each in values]


def stepped(optimizer, weights, gradients):
    """Take a step with these gradients; the change of each parameter."""
    before = [weight.detach().clone() for weight in weights]
    for weight, gradient in zip(weights, gradients, strict=True):
        weight.grad = gradient.clone()
    optimizer.step()
    return [weight.detach() - old for weight, old in zip(weights, before, strict=True)]


@pytest.mark.parametrize("run", RUNS)
def test_golden(field, run):
    golden = field["genie"]
    case = golden["runs"][run]
    weights = parameters(golden["params"])
    optimizer = GenieOptimizer(
        weights,
        lr=golden["eta"],
        beta=golden["beta"],
        drop=case["p"],
        noise=bool(case.get("noise")),
        weight_decay=case.get("weight_decay", 0.0),
    )
    if case.get("noise"):
        noise, kept = (map(tensor, itertools.chain.from_iterable(case[name])) for name in ("noise", "keep"))
        optimizer.normal = lambda like, generator: next(noise)
        optimizer.kept = lambda like, drop, generator: next(kept)
    for step, gradients in zip(case["steps"], golden["gradients"], strict=True):
        assert relative_variance(golden["beta"], step["t"]) == pytest.approx(step["rho"], rel=1e-12)
        changes = stepped(optimizer, weights, map(tensor, gradients))
        for weight, change, expected, each in zip(
            weights, changes, step["params_after"], step["tensors"], strict=True
        ):
            torch.testing.assert_close(weight.detach(), tensor(expected), rtol=0, atol=1e-13)
            torch.testing.assert_close(-change, tensor(each["update"]), rtol=0, atol=1e-13)
            state = optimizer.state[weight]
            trusted, tau = preconditioned(state["mean"], state["square"], step["t"], golden["beta"])
            torch.testing.assert_close(tau, tensor(each["tanh_invvar"]), rtol=1e-9, atol=0)
            shrinkage = trusted * (1 - golden["beta"] ** step["t"]) / state["mean"]
            torch.testing.assert_close(shrinkage, tensor(each["svag_factor"]), rtol=1e-9, atol=0)
            scale = (trusted.abs() * tau).sum() / tau.sum()
            assert scale.item() == pytest.approx(each["noise_scale"], rel=1e-9)


@given(st.floats(-10, 10), st.integers(1, 50), st.floats(0.5, 0.999))
def test_a_constant_gradient_gives_steps_of_plain_descent(g, t, beta):
    if abs(g) < 1e-3:
        return
    weights = [nn.Parameter(tensor([1.0]))]
    optimizer = GenieOptimizer(weights, lr=0.1, beta=beta, drop=0.0, noise=False)
    for _ in range(t):
        (change,) = stepped(optimizer, weights, [tensor([g])])
    assert -change.item() == pytest.approx(0.1 * g, rel=1.1e-8 / g**2 + 1e-7)


HISTORIES = st.lists(st.lists(st.floats(-5, 5), min_size=3, max_size=3), min_size=1, max_size=8)
"""Gradients (3,) of some updates."""


def last_change(history, kept=None, drop=0.0, sizes=(3,)):
    """The last step (3,) of parameters of these sizes without noise, and the corrected mean gradient (3,)."""
    weights = [nn.Parameter(torch.zeros(size, dtype=torch.float64)) for size in sizes]
    optimizer = GenieOptimizer(weights, lr=1.0, drop=drop, noise=False)
    if kept is not None:
        optimizer.kept = lambda like, drop, generator: torch.full_like(like, kept)
    for gradient in history:
        changes = stepped(optimizer, weights, tensor(gradient).split(sizes))
    mean = torch.cat([optimizer.state[weight]["mean"] for weight in weights])
    return torch.cat(changes), mean / (1 - 0.95 ** len(history))


@given(HISTORIES, st.floats(0.1, 0.9))
def test_without_noise_steps_are_along_the_mean_and_masks_keep_them_on_average(history, drop):
    """A component is kept with the probability 1 - p, and is then 1 / (1 - p) times as long."""
    change, mean = last_change(history)
    assert (change * mean <= 0).all()
    assert (change.abs() <= mean.abs() + 1e-12).all()
    kept, _ = last_change(history, 1.0, drop)
    torch.testing.assert_close((1 - drop) * kept, change)
    assert not last_change(history, 0.0, drop)[0].any()


@given(st.floats(0.01, 5), st.floats(0.5, 0.99))
def test_a_mean_gradient_of_0_makes_no_step(g, beta):
    weights = [nn.Parameter(tensor([0.0]))]
    optimizer = GenieOptimizer(weights, lr=1.0, beta=beta, drop=0.0, noise=False)
    stepped(optimizer, weights, [tensor([g])])
    (change,) = stepped(optimizer, weights, [tensor([-beta * g])])
    assert abs(change.item()) < 1e-12 * g


@given(HISTORIES, st.permutations(range(3)))
def test_the_order_of_components_and_the_parameters_they_are_in_do_not_matter_without_draws(history, order):
    change, _ = last_change(history)
    reordered, _ = last_change([[gradient[i] for i in order] for gradient in history])
    torch.testing.assert_close(reordered, change[list(order)], rtol=1e-12, atol=0)
    torch.testing.assert_close(last_change(history, sizes=(1, 2))[0], change, rtol=1e-12, atol=0)


def test_the_first_step_is_that_of_plain_descent():
    """The authors' code leaves the variance of one gradient to rounding."""
    gradient = torch.randn(1000, generator=torch.Generator().manual_seed(0))
    weights = [nn.Parameter(torch.zeros(1000))]
    (change,) = stepped(GenieOptimizer(weights, lr=1.0, drop=0.0), weights, [gradient])
    torch.testing.assert_close(-change, gradient, rtol=1e-3, atol=1e-4)


@given(st.floats(0.5, 0.999))
def test_the_relative_variance_falls_from_1_to_that_of_an_endless_average(beta):
    found = [relative_variance(beta, t) for t in (1, 2, 5, 50, 100_000)]
    assert found[0] == pytest.approx(1)
    assert found == sorted(found, reverse=True)
    assert found[-1] == pytest.approx((1 - beta) / (1 + beta))


def test_the_gain_of_the_papers_box_is_the_ratio_of_the_averages():
    mean, square = tensor([0.02, 0.0]), tensor([0.01, 0.0])
    trusted, tau = preconditioned(mean, square, 3, 0.95, "paper")
    torch.testing.assert_close(trusted, mean / (1 - 0.95**3) * tensor([0.04, 0.0]))
    assert torch.equal(tau, preconditioned(mean, square, 3, 0.95)[1])


def test_masks_keep_the_mean_step_and_drop_the_share_asked_for():
    weights = [nn.Parameter(torch.zeros(100_000, dtype=torch.float64))]
    optimizer = GenieOptimizer(weights, lr=1.0, drop=0.25, noise=False)
    (change,) = stepped(optimizer, weights, [torch.ones(100_000, dtype=torch.float64)])
    assert (change == 0).double().mean().item() == pytest.approx(0.25, abs=0.01)
    assert -change.mean().item() == pytest.approx(1, abs=0.02)
    assert sorted(change.unique().tolist()) == pytest.approx([-4 / 3, 0])


def test_uncertain_components_get_noise_of_the_size_of_the_certain_ones():
    gradients = torch.ones(20_000, dtype=torch.float64)
    weights = [nn.Parameter(torch.zeros(20_000, dtype=torch.float64))]
    optimizer = GenieOptimizer(weights, lr=1.0, drop=0.0)
    signs = gradients.clone()
    signs[1000:] = 1000.0
    for _ in range(6):
        signs[1000:] *= -1
        (change,) = stepped(optimizer, weights, [signs])
    torch.testing.assert_close(change[:1000], -gradients[:1000], rtol=1e-3, atol=1e-3)
    assert change[1000:].std().item() == pytest.approx(1, rel=0.05)


def test_draws_depend_on_the_seed_the_parameter_and_its_step_alone():
    def changes(seed, draws_before=0):
        weights = [nn.Parameter(torch.zeros(50)), nn.Parameter(torch.zeros(50))]
        optimizer = GenieOptimizer(weights, lr=1.0, seed=seed)
        torch.rand(draws_before)
        return [stepped(optimizer, weights, [torch.ones(50)] * 2) for _ in range(2)]

    found = changes(0)
    assert all(torch.equal(a, b) for a, b in zip(found[0], changes(0, 7)[0], strict=True))
    masks = [change.bool().tolist() for step in (*found, *changes(1)) for change in step]
    assert len({tuple(mask) for mask in masks}) == 8


def test_a_parameter_without_a_gradient_keeps_its_own_count():
    weights = [nn.Parameter(torch.ones(2)), nn.Parameter(torch.ones(2))]
    optimizer = GenieOptimizer(weights, lr=0.1, drop=0.0, weight_decay=0.1)
    weights[0].grad = torch.ones(2)
    optimizer.step()
    assert torch.equal(weights[1], torch.ones(2))
    stepped(optimizer, weights, [torch.ones(2)] * 2)
    assert [optimizer.state[weight]["t"] for weight in weights] == [2, 1]


@pytest.mark.usefixtures("float64")
def test_preconditioning_alone_follows_erms_gradient_at_first(make, minibatches, given_to_adam, weights_of):
    method, erm = make("GENIE", genie_noise=False, genie_p=0.0, lr=0.5), make("ERM")
    before = weights_of(method)
    assert torch.equal(before, weights_of(erm))
    method.update(minibatches())
    erm.update(minibatches())
    clear = given_to_adam(erm).abs() > 1e-3
    torch.testing.assert_close(
        (before - weights_of(method))[clear], 0.5 * given_to_adam(erm)[clear], rtol=1e-2, atol=1e-6
    )
    assert method.DISTRIBUTED


def test_the_seed_is_the_runs_and_is_saved_with_the_optimizer(make):
    first, second = make("GENIE", seed=5), make("GENIE", seed=6)
    assert [method.optimizer.param_groups[0]["seed"] for method in (first, second)] == [5, 6]
    second.load_training_state(first.training_state())
    assert second.optimizer.param_groups[0]["seed"] == 5

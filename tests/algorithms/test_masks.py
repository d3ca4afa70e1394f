"""Golden vectors and invariants of ANDMask and SANDMask, and their updates of a network."""

import logging
from types import SimpleNamespace

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays
from torch import nn

from domainbed.algorithms import get_algorithm_class
from domainbed.algorithms.masks import ANDMask, SANDMask, mean_sign
from domainbed.errors import UsageError
from domainbed.gradients.comparison import Combined, signs_agree
from domainbed.hparams import override
from domainbed.hparams_registry import default_hparams, options, switches, table

G = torch.tensor(
    [[3, -4, -1, 0, -2, 0, -2, 3], [1, 1, -2, 0, -1, 3, 1, -3], [2, 0, -1, 0, 4, -3, 2, -2]],
    dtype=torch.float64,
)


def and_mask(stack, tau):
    return ANDMask.mask(SimpleNamespace(hparams={"tau": tau}), list(stack))


def sand_mask(stack, tau, k):
    return SANDMask.mask(SimpleNamespace(hparams={"tau": tau, "k": k}), list(stack))


def masked(cls, stack, sizes=None, **hparams):
    """The gradient that the optimizer gets, of gradients (K, P) by parameters of these sizes, or of one."""
    method = SimpleNamespace(
        hparams=hparams,
        mask=lambda gradients: cls.mask(method, gradients),
        trained_parameters=lambda: [torch.empty(size) for size in sizes or [stack.shape[1]]],
    )
    gradient, mask = cls.combine(method, list(stack))
    combined = Combined(
        gradient,
        gram=stack @ stack.T,
        agreeing=torch.tensor(0),
        zeros=torch.tensor(0),
        norm=gradient.norm(),
        weights=mask,
    )
    cls.finish(method, combined)
    return combined.gradient


def and_masked(stack, tau, sizes=None):
    return masked(ANDMask, stack, sizes, tau=tau)


def sand_masked(stack, tau, k, sizes=None):
    return masked(SANDMask, stack, sizes, tau=tau, k=k)


def stacks(min_k=1, max_k=5):
    """K gradients (K, P) with zeros, ties, and scales from 1e-3 to 1e3."""
    values = st.one_of(
        st.integers(-3, 3).map(float), st.floats(-1e3, 1e3).filter(lambda v: v == 0 or abs(v) > 1e-3)
    )
    shapes = st.tuples(st.integers(min_k, max_k), st.integers(1, 12))
    return shapes.flatmap(lambda shape: arrays(np.float64, shape, elements=values)).map(torch.from_numpy)


@pytest.mark.parametrize(
    ("tau", "expected"),
    [
        (1, [8, 0, -5.333333, 0, 0, 0, 0, 0]),
        (0.3, [3.2, 0, -2.133333, 0, 0.533333, 0, 0.533333, -1.066667]),
    ],
)
def test_andmask_on_the_golden_example(tau, expected):
    assert and_masked(G, tau).tolist() == pytest.approx(expected, rel=1e-6)


@pytest.mark.parametrize(
    ("tau", "k", "expected"),
    [
        (1, 10, [0] * 8),
        (0.5, 1, [5.407783, 0, -7.061478, 0, 0, 0, 0, 0]),
        (0.3, 1, [6.085656, 0, -6.514616, 0, 0.005414, 0, 0.012909, -0.010827]),
    ],
)
def test_sandmask_on_the_golden_example(tau, k, expected):
    assert sand_masked(G, tau, k).tolist() == pytest.approx(expected, rel=1e-6, abs=1e-6)


@settings(deadline=None)
@given(stacks())
def test_andmask_at_tau_1_keeps_the_components_whose_signs_agree(stack):
    """Times K and the share of components kept, their mean is their sum (Agr-Sum)."""
    agree, mask = signs_agree(list(stack)).bool(), and_mask(stack, 1)
    assert torch.equal(mask.bool(), agree)
    found = len(stack) * mask.mean() * and_masked(stack, 1)
    torch.testing.assert_close(found, torch.where(agree, stack.sum(0), 0), rtol=1e-5, atol=1e-9)


@settings(deadline=None)
@given(stacks(), st.floats(0.05, 1), st.data())
def test_masks_do_not_depend_on_the_order_of_environments(stack, tau, data):
    shuffled = stack[list(data.draw(st.permutations(range(len(stack)))))]
    torch.testing.assert_close(and_masked(shuffled, tau), and_masked(stack, tau))
    torch.testing.assert_close(
        sand_masked(shuffled, tau, 1.0), sand_masked(stack, tau, 1.0), rtol=1e-5, atol=1e-7
    )


@settings(deadline=None)
@given(stacks(), st.floats(0, 1), st.floats(1e-2, 1e2), st.data())
def test_andmask_is_unchanged_by_positive_scaling_of_an_environment(stack, tau, scale, data):
    scaled = stack.clone()
    scaled[data.draw(st.integers(0, len(stack) - 1))] *= scale
    assert torch.equal(and_mask(scaled, tau), and_mask(stack, tau))


@settings(deadline=None)
@given(stacks(max_k=1), st.floats(0.01, 0.99))
def test_one_environment_keeps_its_gradient_up_to_the_share_of_nonzero_components(stack, tau):
    share = max((stack != 0).double().mean().item(), 1e-30)
    for result in (and_masked(stack, tau), sand_masked(stack, tau, 10.0)):
        torch.testing.assert_close(result * share, stack[0], rtol=1e-5, atol=0)


@settings(deadline=None)
@given(stacks(), st.floats(0, 0.99), st.floats(1e-3, 1e5))
def test_sandmask_lies_between_0_and_1_and_is_0_where_andmask_is(stack, tau, k):
    mask = sand_mask(stack, tau, k)
    assert ((mask >= 0) & (mask <= 1)).all()
    assert (mask[and_mask(stack, tau) == 0] <= 1e-17).all()


def test_small_gradients_make_sandmask_an_andmask():
    torch.manual_seed(0)
    stack = 1e-3 * torch.randn(3, 50)
    torch.testing.assert_close(sand_masked(stack, 0.5, 10.0), and_masked(stack, 0.5))


def test_each_tensor_is_divided_by_its_own_share():
    whole = and_masked(G, 0.3, [3, 5])
    assert torch.equal(whole, torch.cat([and_masked(G[:, :3], 0.3), and_masked(G[:, 3:], 0.3)]))
    assert not torch.equal(whole, and_masked(G, 0.3))


@settings(deadline=None)
@given(stacks())
def test_mean_sign_equals_its_definition(stack):
    expected = stack.sign().mean(0).abs()
    torch.testing.assert_close(mean_sign(list(stack)), expected, rtol=1e-15, atol=0)


@pytest.mark.parametrize("k", [127, 128, 300])
def test_signs_of_many_environments_do_not_overflow(k):
    assert mean_sign([torch.ones(2)] * k).tolist() == [1, 1]


@settings(deadline=None)
@given(stacks(min_k=2), st.floats(0, 0.9))
def test_sandmask_equals_its_definition(stack, tau):
    """Where the variance is not 0; its scale is that of the steepness here, so that masks are not 0 or 1."""
    varying = (variance := stack.var(0)) > 1e-6
    if not varying.any():
        return
    k = variance[varying].median().item()
    expected = torch.tanh(k * (stack.sign().mean(0).abs() - tau) / variance).clamp_min(0)
    torch.testing.assert_close(sand_mask(stack, tau, k)[varying], expected[varying], rtol=1e-6, atol=1e-9)


def test_a_small_variance_beside_a_large_mean_does_not_cancel():
    torch.manual_seed(0)
    stack = 1000 + 0.1 * torch.randn(5, 100)
    exact = stack.double().var(0)
    k = 0.01  # about the variance
    found = 0.5 * k / sand_mask(stack, 0.5, k).double().atanh()
    close = sand_mask(stack, 0.5, k) < 0.9  # nearer to 1, tanh tells little of the variance
    assert close.sum() > 50
    torch.testing.assert_close(found[close], exact[close], rtol=0.02, atol=0)
    squares = (stack.square().mean(0) - stack.mean(0).square()) * 5 / 4
    assert (squares.double() / exact - 1).abs().max() > 1


def test_masks_leave_the_gradients_as_they_are():
    gradients = G.clone()
    and_masked(gradients, 0.3)
    sand_masked(gradients, 0.3, 1.0)
    assert torch.equal(gradients, G)


def make(name, k=3, **overrides):
    """The algorithm, with hyper-parameters that are validated as those of a run."""
    torch.manual_seed(0)
    hparams = default_hparams(name, "Debug28")
    declared = {**options(), **table(name), **switches(name)}
    override(hparams, {"mlp_width": 6} | overrides, declared, "Debug28")
    return get_algorithm_class(name)((4,), 3, k, hparams)


def minibatches(sizes=(6, 4, 5)):
    torch.manual_seed(1)
    return [(torch.randn(n, 4), torch.randint(3, (n,))) for n in sizes]


@pytest.mark.parametrize("name", ["ANDMask", "SANDMask"])
def test_update_gives_the_masked_gradient_to_the_optimizer(name):
    algorithm, batches = make(name), minibatches()
    parameters = list(algorithm.network.parameters())
    losses = [F.cross_entropy(algorithm.predict(x), y) for x, y in batches]
    gradients = [torch.autograd.grad(loss, parameters) for loss in losses]
    stacked = [torch.stack([part.flatten() for part in parts]) for parts in zip(*gradients, strict=True)]
    expected = [and_masked(s, 1) if name == "ANDMask" else sand_masked(s, 0.5, 10.0) for s in stacked]
    assert algorithm.update(batches) == {"loss": pytest.approx(torch.stack(losses).mean().item())}
    for parameter, gradient in zip(parameters, expected, strict=True):
        torch.testing.assert_close(parameter.grad.flatten(), gradient)


@pytest.mark.parametrize("name", ["ANDMask", "SANDMask"])
def test_a_parameter_without_a_gradient_counts_as_zero_and_a_frozen_one_has_none(name):
    algorithm = make(name)
    algorithm.featurizer.unused = nn.Parameter(torch.ones(2))
    algorithm.classifier.bias.requires_grad_(False)
    algorithm.update(minibatches())
    assert algorithm.featurizer.unused.grad.tolist() == [0, 0]
    assert algorithm.classifier.bias.grad is None


def test_sandmask_trains_by_default_and_counts_its_updates():
    algorithm = make("SANDMask")
    before = [parameter.detach().clone() for parameter in algorithm.parameters()]
    algorithm.update(minibatches())
    assert algorithm.update_count.tolist() == [1]
    assert any(not torch.equal(a, b) for a, b in zip(before, algorithm.parameters(), strict=True))


def test_sandmask_that_would_train_nothing_is_refused_unless_asked_for(caplog):
    for tau in (1, 1.0, 1.5):
        with pytest.raises(UsageError, match=rf'tau below 1, not {tau}: .* "upstream_tau": true'):
            make("SANDMask", tau=tau)
    assert not caplog.records
    assert "upstream_tau" in switches("SANDMask")
    with caplog.at_level(logging.WARNING):
        frozen = make("SANDMask", tau=1.0, upstream_tau=True)
    assert [record.getMessage() for record in caplog.records] == [
        "SANDMask: with tau of 1.0 every mask is 0 and nothing trains"
    ]
    before = [parameter.detach().clone() for parameter in frozen.parameters()]
    frozen.update(minibatches())
    assert all(torch.equal(a, b) for a, b in zip(before, frozen.parameters(), strict=True))


def test_upstream_tau_changes_nothing_below_1(caplog):
    for name in ("plain", "switched"):
        algorithm = make("SANDMask", tau=0.9, **({"upstream_tau": True} if name == "switched" else {}))
        algorithm.update(minibatches())
        state = algorithm.state_dict()
        if name == "plain":
            expected = state
    assert all(torch.equal(expected[key], state[key]) for key in expected)
    assert not caplog.records


def test_andmask_that_would_train_nothing_is_refused():
    with pytest.raises(UsageError, match=r"hyper-parameter tau must be at most 1, not 1\.1"):
        make("ANDMask", tau=1.1)

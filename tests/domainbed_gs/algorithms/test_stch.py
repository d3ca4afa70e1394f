"""Golden vectors and invariants of STCH."""

import math

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from domainbed_gs.algorithms.stch import smooth_maximum

pytestmark = pytest.mark.usefixtures("float64")

LOSSES = st.lists(st.floats(1e-3, 10), min_size=1, max_size=5)


def tensor(values):
    return torch.tensor(values, dtype=torch.float64)


@pytest.fixture(scope="module")
def warmed_up(rule):
    """`warmed_up(unit, **hparams)`: STCH after a warm-up of one update with these losses."""

    def new(unit, **hparams):
        method = rule("STCH", k=len(unit), stch_warmup=1, stch_nadir_updates=1, **hparams)
        method.finish([], tensor(unit))
        return method

    return new


def test_golden(rule, field):
    golden = field["stch"]["mtl"]
    for case in golden["cases"]:
        method = rule("STCH", stch_mu=case["mu"], stch_warmup=3, stch_nadir_updates=3)
        for losses in golden["warmup_epoch_losses"]:
            method.finish([], tensor(losses))
        torch.testing.assert_close(method.loss_sum / 3, tensor(golden["nadir"]))
        value, weights = method.weighted(tensor(case["losses"]))
        torch.testing.assert_close(weights, tensor(case["loss_weights"]), rtol=1e-12, atol=1e-300)
        assert value.item() == pytest.approx(case["value_full"], rel=1e-12)


def test_golden_of_the_papers_equation(rule, field):
    """Of those with equal preferences, since environments have no others."""
    equal = [
        case for case in field["stch"]["plain"] if len(set(case["lambda"])) == 1 and not any(case["ideal"])
    ]
    assert equal
    for case in equal:
        method = rule("STCH", stch_form="plain", stch_mu=case["mu"])
        value, weights = method.weighted(tensor(case["losses"]))
        torch.testing.assert_close(weights, tensor(case["loss_weights"]), rtol=1e-12, atol=0)
        assert value.item() == pytest.approx(case["value"], rel=1e-12)


def test_golden_of_the_papers_equation_with_preferences(field):
    for case in field["stch"]["plain"]:
        losses = tensor(case["losses"]).requires_grad_()
        value = smooth_maximum(tensor(case["lambda"]) * (losses - tensor(case["ideal"])), case["mu"])
        (weights,) = torch.autograd.grad(value, losses)
        assert value.item() == pytest.approx(case["value"], rel=1e-12)
        torch.testing.assert_close(weights, tensor(case["loss_weights"]), rtol=1e-12, atol=0)


@given(LOSSES, st.floats(1e-2, 10))
def test_a_smooth_maximum_is_at_most_mu_log_k_above_the_maximum(values, mu):
    found = smooth_maximum(tensor(values), mu).item()
    assert max(values) - 1e-9 <= found <= max(values) + mu * math.log(len(values)) + 1e-9


@settings(max_examples=30)
@given(st.lists(st.tuples(st.floats(1e-3, 10), st.floats(1e-3, 10)), min_size=1, max_size=5), st.data())
def test_weighted_losses_add_up_to_k_whatever_the_scale_of_a_loss(warmed_up, pairs, data):
    losses, unit = (tensor(values) for values in zip(*pairs, strict=True))
    factors = tensor(data.draw(st.lists(st.floats(0.1, 10), min_size=len(pairs), max_size=len(pairs))))
    weights = warmed_up(unit.tolist(), stch_mu=0.3).weighted(losses)[1]
    assert (weights @ losses).item() == pytest.approx(len(pairs))
    scaled = warmed_up((unit * factors).tolist(), stch_mu=0.3).weighted(losses * factors)[1]
    torch.testing.assert_close(scaled * factors, weights, rtol=1e-6, atol=1e-12)


POSITIVE = st.lists(st.integers(1, 40).map(lambda n: n / 10), min_size=2, max_size=5, unique=True)
"""Losses that differ by more than a small mu."""


@settings(max_examples=20)
@given(POSITIVE, st.randoms(use_true_random=False))
def test_a_small_mu_gives_all_weight_to_the_environment_that_improved_least(warmed_up, rule, ratios, random):
    k, worst = len(ratios), max(range(len(ratios)), key=ratios.__getitem__)
    unit = [random.uniform(0.5, 4) for _ in ratios]
    losses = tensor(ratios) * tensor(unit)
    expected = torch.zeros(k)
    expected[worst] = k / losses[worst]
    torch.testing.assert_close(warmed_up(unit, stch_mu=1e-4).weighted(losses)[1], expected)
    plain = rule("STCH", k=k, stch_form="plain", stch_mu=1e-4).weighted(tensor(ratios))[1]
    torch.testing.assert_close(plain, (expected > 0).double() / k)


@settings(max_examples=20)
@given(LOSSES, st.randoms(use_true_random=False), st.floats(0.1, 10))
def test_a_large_mu_and_equal_ratios_and_the_warm_up_weigh_by_one_over_the_loss(
    warmed_up, rule, values, random, ratio
):
    losses, k = tensor(values), len(values)
    unit = [random.uniform(0.5, 4) for _ in values]
    torch.testing.assert_close(warmed_up(unit, stch_mu=1e9).weighted(losses)[1], 1 / losses)
    same_ratio = [ratio * value for value in values]
    torch.testing.assert_close(warmed_up(same_ratio, stch_mu=0.1).weighted(losses)[1], 1 / losses)
    torch.testing.assert_close(rule("STCH", k=k).weighted(losses)[1], 1 / losses)
    plain = rule("STCH", k=k, stch_form="plain", stch_mu=1e9).weighted(losses)[1]
    torch.testing.assert_close(plain, torch.full((k,), 1 / k**2))


def test_mu_1_descends_the_sum_of_ratios(warmed_up):
    unit, losses = tensor([2.0, 1.0, 4.0]), tensor([1.0, 0.8, 2.0])
    weights = warmed_up(unit.tolist(), stch_mu=1.0).weighted(losses)[1]
    torch.testing.assert_close(weights, 3 / unit / (losses / unit).sum())


def test_the_unit_is_the_mean_loss_of_the_last_updates_of_the_warm_up(make, minibatches):
    method = make("STCH", stch_warmup=4, stch_nadir_updates=2)
    sums = [method.loss_sum.clone()]
    for seed in range(6):
        method.update(minibatches(seed=seed))
        sums.append(method.loss_sum.clone())
    assert not sums[2].any()
    assert (sums[3] > 0).all()
    assert (sums[4] > sums[3]).all()
    assert torch.equal(sums[6], sums[4])


def test_a_run_that_is_resumed_in_or_after_the_warm_up_equals_one_that_was_not(make, minibatches, weights_of):
    hparams = {"stch_warmup": 3, "stch_nadir_updates": 2}
    straight = make("STCH", **hparams)
    for seed in range(6):
        straight.update(minibatches(seed=seed))
    for stop in (2, 4):
        first, second = make("STCH", **hparams), make("STCH", seed=9, **hparams)
        for seed in range(stop):
            first.update(minibatches(seed=seed))
        second.load_training_state(first.training_state())
        for seed in range(stop, 6):
            second.update(minibatches(seed=seed))
        assert torch.equal(weights_of(second), weights_of(straight))

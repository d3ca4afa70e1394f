"""Golden vectors and invariants of FairGrad, and the length of its direction."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy.optimize import minimize

from domainbed_gs.algorithms.fairgrad import fairgrad_weights
from domainbed_gs.algorithms.mgda import mgda_weights
from domainbed_gs.algorithms.nash_mtl import nash_mtl_weights

CASES = ("A_mixed", "B_conflict", "C_rank2")
ALPHAS = (0.5, 1, 2, 5)


def random_gradients(k, seed, scale=0):
    """(K, 20), of lengths from 1e-2 to 1e2 times 10^scale."""
    rng = np.random.default_rng(seed)
    return rng.standard_normal((k, 20)) * 10.0 ** (scale + rng.uniform(-2, 2, (k, 1)))


@pytest.mark.parametrize("alpha", ALPHAS)
@pytest.mark.parametrize("case", CASES)
def test_golden(field, case, alpha):
    g = np.array(field["gradients"][case]["g"])
    expected = field["fairgrad"][case][f"alpha={alpha}"]
    weights, length = fairgrad_weights(g @ g.T, alpha)
    np.testing.assert_allclose(weights, expected["w"], rtol=1e-12)
    np.testing.assert_allclose(weights @ g, expected["d"], atol=1e-12)
    assert length == pytest.approx(expected["d_norm"], rel=1e-12)


@pytest.mark.parametrize("alpha", ALPHAS)
@pytest.mark.parametrize("case", CASES)
def test_golden_update_of_the_authors_code(rule, field, case, alpha):
    """Their clip divides by the norm plus 1e-6."""
    g = np.array(field["gradients"][case]["g"])
    expected = field["fairgrad"][case][f"alpha={alpha}"]["reference_update_K_times_d_clipped_at_1"]
    method = rule("FairGrad", fairgrad_alpha=float(alpha), fairgrad_length="reference")
    np.testing.assert_allclose(method.weights(g @ g.T) @ g, expected, rtol=1e-6)


@given(st.integers(1, 8), st.integers(0, 2**32), st.integers(-12, 12), st.sampled_from([0.5, 1.0, 2.0, 5.0]))
def test_every_environment_gains_and_the_equation_holds(k, seed, scale, alpha):
    g = random_gradients(k, seed, scale)
    weights, length = fairgrad_weights(g @ g.T, alpha)
    gains = g @ (weights @ g)
    assert (gains > 0).all()
    np.testing.assert_allclose(weights, gains**-alpha, rtol=1e-6)
    assert length == pytest.approx(np.linalg.norm(weights @ g), rel=1e-9)
    assert length**2 == pytest.approx((weights ** (1 - 1 / alpha)).sum(), rel=1e-6)


@given(st.integers(1, 8), st.integers(0, 2**32), st.integers(-12, 12), st.sampled_from([0.5, 1.0, 2.0, 5.0]))
def test_the_scale_of_the_gradients_changes_the_solution_by_a_power(k, seed, scale, alpha):
    g = random_gradients(k, seed)
    scaled = g * 10.0**scale
    power = 10.0 ** (-2 * alpha / (1 + alpha) * scale)
    np.testing.assert_allclose(
        fairgrad_weights(scaled @ scaled.T, alpha)[0],
        power * fairgrad_weights(g @ g.T, alpha)[0],
        rtol=1e-6,
    )


@given(st.integers(1, 8), st.integers(0, 2**32), st.randoms(use_true_random=False))
def test_the_order_of_environments_does_not_matter(k, seed, random):
    g = random_gradients(k, seed)
    order = random.sample(range(k), k)
    np.testing.assert_allclose(
        fairgrad_weights(g[order] @ g[order].T, 2.0)[0], fairgrad_weights(g @ g.T, 2.0)[0][order], rtol=1e-6
    )


@given(st.integers(1, 8), st.integers(0, 2**32))
def test_alpha_1_is_the_nash_bargain(k, seed):
    g = random_gradients(k, seed)
    np.testing.assert_allclose(fairgrad_weights(g @ g.T, 1.0)[0], nash_mtl_weights(g @ g.T), rtol=1e-9)


@given(st.integers(1, 8), st.integers(0, 2**32))
def test_with_alpha_1_no_direction_of_that_length_has_a_greater_sum_of_log_gains(k, seed):
    g = random_gradients(k, seed)
    d = fairgrad_weights(g @ g.T, 1.0)[0] @ g
    other = d + 0.3 * np.random.default_rng(seed).standard_normal(len(d))
    other *= np.sqrt(k) / np.linalg.norm(other)
    if (g @ other > 0).all():
        assert np.log(g @ other).sum() <= np.log(g @ d).sum() + 1e-9


def test_alpha_1_maximises_the_sum_of_log_gains(field):
    """Over |d|^2 = K, by a general optimiser from the mean gradient."""
    g = np.array(field["gradients"]["B_conflict"]["g"])

    def minus_log_gains(d):
        gains = g @ (d * np.sqrt(3) / np.linalg.norm(d))
        return np.inf if gains.min() <= 0 else -np.log(gains).sum()

    found = minimize(
        minus_log_gains, g.mean(0), method="Nelder-Mead", options={"maxiter": 10**4, "xatol": 1e-9}
    )
    weights, _ = fairgrad_weights(g @ g.T, 1.0)
    assert -np.log(g @ (weights @ g)).sum() == pytest.approx(found.fun, abs=1e-6)


@pytest.mark.parametrize("case", CASES)
def test_a_large_alpha_gives_the_direction_of_mgda(field, case):
    g = np.array(field["gradients"][case]["g"])
    shortest = mgda_weights(g @ g.T) @ g

    def angle(alpha):
        d = fairgrad_weights(g @ g.T, alpha)[0] @ g
        return np.arccos(min(d @ shortest / np.linalg.norm(d) / np.linalg.norm(shortest), 1.0))

    angles = [angle(alpha) for alpha in (5.0, 50.0, 500.0)]
    assert angles[1] < 0.15 * angles[0]
    assert angles[2] < 0.15 * angles[1]


@given(st.floats(1e-3, 1e3), st.integers(1, 6), st.sampled_from(ALPHAS))
def test_one_environment_and_identical_ones(norm, k, alpha):
    g = np.array([[0.6, 0.8]]) * norm
    expected = norm ** (-2 * alpha / (1 + alpha))
    np.testing.assert_allclose(fairgrad_weights(g @ g.T, alpha)[0], expected, rtol=1e-6)
    same = g.repeat(k, axis=0)
    weights, _ = fairgrad_weights(same @ same.T, alpha)
    np.testing.assert_allclose(weights, weights[0], rtol=1e-6)


@given(st.integers(1, 8), st.integers(0, 2**32), st.data())
def test_with_alpha_1_the_direction_is_sqrt_k_long_and_lengths_of_gradients_do_not_matter(k, seed, data):
    g = random_gradients(k, seed)
    d = fairgrad_weights(g @ g.T, 1.0)[0] @ g
    assert d @ d == pytest.approx(k, rel=1e-6)
    scaled = g.copy()
    scaled[data.draw(st.integers(0, k - 1))] *= data.draw(st.floats(1e-3, 1e3))
    np.testing.assert_allclose(fairgrad_weights(scaled @ scaled.T, 1.0)[0] @ scaled, d, rtol=1e-5, atol=1e-7)


def test_a_gradient_of_zero_has_no_weight_and_changes_no_other(gram):
    with_zero = np.zeros((4, 4))
    with_zero[:3, :3] = gram
    np.testing.assert_allclose(
        fairgrad_weights(with_zero, 2.0)[0], np.append(fairgrad_weights(gram, 2.0)[0], 0), rtol=1e-12
    )


def lengths(update_with, g, **hparams):
    return update_with(g, "FairGrad", **hparams)[0].norm().item()


def test_the_direction_has_the_length_asked_for(update_with, example, gram):
    solution = fairgrad_weights(gram, 2.0)[1]
    assert lengths(update_with, example) == pytest.approx(example.mean(0).norm().item(), rel=1e-6)
    free = lengths(update_with, example, fairgrad_length="reference", fairgrad_max_norm=1e9)
    assert free == pytest.approx(3 * solution, rel=1e-6)
    assert lengths(update_with, example, fairgrad_length="reference") == pytest.approx(1.0, rel=1e-6)


def test_directions_fade_as_the_gradients_come_to_cancel(rule):
    """The mean stays 0.5 long; a fixed length would be that of rounding at the end."""
    method = rule("FairGrad")
    found = []
    for angle in [1e-2, *(np.array([2.0, 1.0, 0.5, 0.1, 0.0]) * method.tolerance)]:
        g = np.array([[1.0, 0.0], [-2.0, 2 * angle]])
        found.append(np.linalg.norm(method.weights(g @ g.T) @ g))
    assert found[0] == pytest.approx(0.5, rel=1e-3)
    assert (np.diff(found) <= 1e-9).all()
    assert found[-1] < 1e-3

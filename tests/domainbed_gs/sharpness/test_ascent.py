"""Rises of a loss in a ball: closed forms of quadratics."""

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from domainbed_gs.sharpness.ascent import ascend


def zeros(n):
    return torch.zeros(n, dtype=torch.float64)


@pytest.mark.parametrize("rho", [0.05, 1.0, 7.0])
def test_the_rise_after_one_step_is_that_of_the_formula(quadratic, rho):
    """L(w + rho g / |g|) - L(w) = rho |g| + rho^2 g^T H g / (2 |g|^2)."""
    loss, at = quadratic([-3.0, 0, 1, 5]), torch.arange(4, dtype=torch.float64)
    g = loss.slope + loss.hessian @ at
    found = ascend(loss, at, rho, 1)
    expected = rho * g.norm() + rho**2 / 2 * (g @ loss.hessian @ g) / (g @ g)
    assert found.one_step == found.worst == pytest.approx(float(expected), rel=1e-12)
    assert found.value == pytest.approx(loss.value(at))
    assert found.gradient_norm == pytest.approx(float(g.norm()))


def largest_rise(loss, rho):
    """Largest value of a^T d + d^T H d / 2 with |d| <= rho, for a convex quadratic, by its secular equation.

    At the maximum d = (m - H)^-1 a, with the m above all eigenvalues for which |d| = rho.
    """
    values, basis = np.linalg.eigh(loss.hessian.numpy())
    a = basis.T @ loss.slope.numpy()
    low, high = values.max(), values.max() + np.linalg.norm(a) / rho
    for _ in range(200):
        middle = (low + high) / 2
        low, high = (middle, high) if np.linalg.norm(a / (middle - values)) > rho else (low, middle)
    d = a / (high - values)
    return float(a @ d + d @ (values * d) / 2)


@pytest.mark.parametrize("seed", range(4))
@pytest.mark.parametrize("rho", [0.1, 2.0])
def test_the_worst_rise_converges_to_the_largest_one_in_the_ball(quadratic, seed, rho):
    loss = quadratic([0.0, 0.5, 1, 2, 4], seed)
    exact = largest_rise(loss, rho)
    worst = [ascend(loss, zeros(5), rho, steps).worst for steps in (1, 5, 500)]
    assert worst == sorted(worst)
    assert worst[-1] == pytest.approx(exact, rel=1e-9)


@given(curvature=st.floats(0, 100), rho=st.floats(0.01, 10), n=st.integers(1, 6))
def test_the_rise_of_an_isotropic_quadratic_is_known_for_any_number_of_steps(curvature, rho, n):
    class Isotropic:
        slope = torch.arange(1, n + 1, dtype=torch.float64)

        def value(self, at):
            return float(self.slope @ at + curvature * at @ at / 2)

        def add_gradient(self, at, out, factor=1.0):
            out.add_(self.slope + curvature * at, alpha=factor)

    found = ascend(Isotropic(), zeros(n), rho, 4)
    expected = rho * float(Isotropic.slope.norm()) + curvature * rho**2 / 2
    assert found.one_step == pytest.approx(expected)
    assert found.worst == pytest.approx(expected)


def test_no_step_leaves_the_ball_and_the_parameters_stay(quadratic):
    loss, at = quadratic([1.0, 3, 9]), torch.ones(3, dtype=torch.float64)
    distances = []
    inner = loss.value
    loss.value = lambda point: distances.append(float((point - at).norm())) or inner(point)
    ascend(loss, at, 0.3, 6)
    assert distances[0] == 0
    assert max(distances) <= 0.3 * (1 + 1e-12)
    assert distances[1:] == pytest.approx([0.3] * 6)
    assert torch.equal(at, torch.ones(3, dtype=torch.float64))


def test_watched_losses_are_measured_at_the_points_of_the_ascent(quadratic):
    loss, other, at = quadratic([1.0, 3]), quadratic([2.0, 0.1], seed=5), zeros(2)
    found = ascend(loss, at, 0.5, 3, [loss, other])
    assert found.watched_one_step[0] == pytest.approx(found.one_step)
    assert found.watched_worst[0] == pytest.approx(found.worst)
    step = 0.5 * loss.slope / loss.slope.norm()
    assert found.watched_one_step[1] == pytest.approx(other.value(step))


def test_a_flat_point_does_not_rise_and_the_bar_still_advances(quadratic):
    loss = quadratic([1.0, 2])
    loss.slope.zero_()
    steps = []
    found = ascend(loss, zeros(2), 0.1, 4, [loss], lambda: steps.append(1))
    assert (found.one_step, found.worst, found.watched_worst, found.gradient_norm) == (0, 0, (0.0,), 0)
    assert len(steps) == 4


def test_a_loss_that_is_not_a_number_is_seen(quadratic):
    loss = quadratic([1.0, 2])
    inner = loss.value
    loss.value = lambda point: inner(point) if not point.any() else float("nan")
    found = ascend(loss, zeros(2), 0.1, 3)
    assert np.isnan(found.one_step)
    assert np.isnan(found.worst)

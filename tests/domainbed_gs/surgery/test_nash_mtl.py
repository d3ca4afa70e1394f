"""Golden vectors E.1 and invariants E.2 of the gradient surgery specification: Nash-MTL."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from domainbed_gs import surgery


def test_golden(gram):
    np.testing.assert_allclose(surgery.nash_mtl_weights(gram), [0.206914, 0.234982, 0.198592], atol=1e-6)


@settings(deadline=None)
@given(st.integers(1, 10), st.integers(0, 2**32), st.integers(-12, 12))
def test_it_solves_the_bargaining_equations_and_has_a_fixed_length(k, seed, scale):
    rng = np.random.default_rng(seed)
    g = rng.standard_normal((k, 20)) * 10.0 ** (scale + rng.uniform(-2, 2, (k, 1)))
    alpha = surgery.nash_mtl_weights(g @ g.T)
    assert (alpha > 0).all()
    np.testing.assert_allclose(alpha * (g @ g.T @ alpha), 1, rtol=1e-11)
    assert np.square(alpha @ g).sum() == pytest.approx(k)


@given(st.floats(-0.99, 1), st.floats(-6, 6), st.floats(-6, 6))
def test_two_environments_are_weighted_by_their_inverse_norms(cosine, log_a, log_b):
    norms = np.array([10**log_a, 10**log_b])
    gram = np.array([[1, cosine], [cosine, 1]]) * np.outer(norms, norms)
    np.testing.assert_allclose(surgery.nash_mtl_weights(gram), 1 / norms / np.sqrt(1 + cosine), rtol=1e-9)


@pytest.mark.parametrize(
    "start",
    [
        [0.2, 0.2, 0.2],
        [1e-9, 1.0, 1e9],
        [1e30, 1e30, 1e30],
        [0.0, 1.0, 1.0],
        [np.nan, 1.0, 1.0],
        [-1.0, 1.0, 1.0],
    ],
)
def test_the_start_does_not_change_the_solution(gram, start):
    np.testing.assert_allclose(
        surgery.nash_mtl_weights(gram, np.array(start)), surgery.nash_mtl_weights(gram), rtol=1e-12
    )


def test_an_environment_without_gradient_has_no_weight_and_no_say(gram):
    with_zero = np.zeros((4, 4))
    with_zero[:3, :3] = gram
    start = np.array([0.2, 0.2, 0.2, 0.0])
    expected = np.append(surgery.nash_mtl_weights(gram), 0)
    np.testing.assert_allclose(surgery.nash_mtl_weights(with_zero, start), expected, rtol=1e-12)


@pytest.mark.parametrize(
    "g",
    [
        [[1.0, 2.0], [-2.0, -4.0]],
        [[1.0, 0.0], [-0.5, 0.75**0.5], [-0.5, -(0.75**0.5)]],
        [[1.0, 0.0, 1.0], [-1.0, 0.0, 0.0], [0.0, 1.0, 0.0], [0.0, 0.0, -1.0]],
    ],
)
def test_at_a_pareto_stationary_point_weights_are_finite_and_the_direction_harms_none(g):
    g = np.array(g)
    alpha = surgery.nash_mtl_weights(g @ g.T)
    assert (alpha > 0).all()
    assert alpha.max() < 1e5
    assert (g @ (alpha @ g) / np.linalg.norm(g, axis=1)).min() >= -1e-3


def test_the_mending_sets_in_without_a_jump():
    """Two unit gradients at an angle of pi - e: the least distance of their hull from 0 is e / 2."""
    weights = []
    for e in np.linspace(1.9e-4, 2.1e-4, 101):
        g = np.array([[1.0, 0.0], [-np.cos(e), np.sin(e)]])
        weights.append(surgery.nash_mtl_weights(g @ g.T)[0])
    assert np.abs(np.diff(np.log(weights))).max() < 0.01

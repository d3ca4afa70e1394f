"""Golden vectors and invariants of CAGrad."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from domainbed.errors import UsageError
from domainbed_gs.algorithms.cagrad import cagrad_weights


@pytest.mark.parametrize(
    ("c", "expected"), [(0.5, [0.470372, 0.577355, 0.435889]), (0.4, [0.436494, 0.535772, 0.404496])]
)
def test_golden(gram, c, expected):
    np.testing.assert_allclose(cagrad_weights(gram, c), expected, atol=1e-6)


@given(st.integers(1, 10), st.integers(0, 2**32), st.floats(0, 3))
def test_the_distance_to_the_mean_is_c_times_its_length_and_no_vector_there_does_better(k, seed, c):
    rng = np.random.default_rng(seed)
    g = rng.standard_normal((k, 20))
    mean = g.mean(axis=0)
    d = cagrad_weights(g @ g.T, c) @ g
    radius = c * np.linalg.norm(mean)
    assert np.linalg.norm(d - mean) == pytest.approx(radius, rel=1e-9)
    # Others at that distance, most of them near d.
    others = (d - mean)[None] + rng.standard_normal((50, 20)) * 10.0 ** rng.uniform(-4, 0, (50, 1))
    others *= radius / np.linalg.norm(others, axis=1, keepdims=True)
    assert ((mean + others) @ g.T).min(axis=1).max() <= (g @ d).min() + 1e-9


@given(st.integers(1, 6), st.integers(0, 2**32))
def test_c_0_is_the_mean(k, seed):
    g = np.random.default_rng(seed).standard_normal((k, 5))
    assert cagrad_weights(g @ g.T, 0.0).tolist() == [1 / k] * k


@pytest.mark.parametrize(("rescale", "divisor"), [("none", 1), ("one_plus_c", 1.5), ("one_plus_c2", 1.25)])
def test_rescale_divides_the_weights(rule, gram, rescale, divisor):
    found = rule("CAGrad", cagrad_c=0.5, cagrad_rescale=rescale).weights(gram)
    np.testing.assert_allclose(found, cagrad_weights(gram, 0.5) / divisor)


def test_a_pareto_stationary_point_within_reach_gives_the_nearest_direction_that_harms_none():
    """Opposite in the first component, in agreement in the second: nothing lowers the first two losses."""
    g = np.array([[1.0, 0.0], [-2.0, 0.0], [0.0, 1.0]])
    np.testing.assert_allclose(cagrad_weights(g @ g.T, 0.9) @ g, [0, 1 / 3], atol=1e-12)


def test_a_pareto_stationary_point_out_of_reach_gives_the_least_harm():
    g = np.array([[2.0, 0.0], [-1.0, 0.0]])
    np.testing.assert_allclose(cagrad_weights(g @ g.T, 0.4) @ g, [0.3, 0.0], atol=1e-12)


def test_with_a_gradient_of_zero_and_no_conflict_the_direction_is_the_mean():
    np.testing.assert_allclose(cagrad_weights(np.diag([4.0, 0.0, 9.0]), 0.5), np.full(3, 1 / 3))


@pytest.mark.parametrize("g", [[[1.0, 2.0], [-1.0, -2.0]], [[0.1, 0.2], [0.3, 0.4], [-0.4, -0.6]]])
def test_a_mean_of_0_gives_the_means_weights(g):
    g = np.array(g)
    assert cagrad_weights(g @ g.T, 0.5).tolist() == [1 / len(g)] * len(g)


def test_a_wrong_hyper_parameter_is_refused(rule):
    with pytest.raises(UsageError, match="hyper-parameter cagrad_c must be at least 0, not -1"):
        rule("CAGrad", cagrad_c=-1.0)
    with pytest.raises(
        UsageError, match="cagrad_rescale must be one of none, one_plus_c, one_plus_c2, not 'half'"
    ):
        rule("CAGrad", cagrad_rescale="half")

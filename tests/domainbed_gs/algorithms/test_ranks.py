"""The mixture over numerical ranks: exact where the rank is clear, without jumps elsewhere."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from domainbed_gs.algorithms.aligned_mtl import aligned_mtl_weights
from domainbed_gs.algorithms.imtl_g import imtl_g_weights
from domainbed_gs.algorithms.ranks import numerical_ranks, trust

TOLERANCE = 2.4e-4


@given(st.integers(1, 5), st.integers(0, 2**32), st.floats(-9, 0))
def test_independent_gradients_of_any_lengths_have_one_rank(k, seed, shortest):
    rng = np.random.default_rng(seed)
    g = rng.standard_normal((k, 40)) * np.logspace(0, shortest, k)[:, None]
    ((share, values, axes),) = numerical_ranks(g @ g.T, TOLERANCE)
    assert share == pytest.approx(1)
    np.testing.assert_allclose(values, np.linalg.svd(g, compute_uv=False), rtol=1e-6)
    np.testing.assert_allclose(np.linalg.norm(axes.T @ g, axis=1), values, rtol=1e-6)


@given(st.integers(2, 5), st.integers(1, 4), st.integers(0, 2**32))
def test_dependent_gradients_have_the_rank_of_their_span(k, rank, seed):
    rng = np.random.default_rng(seed)
    g = rng.standard_normal((k, rank)) @ np.linalg.qr(rng.standard_normal((40, rank)))[0].T
    found = list(numerical_ranks(g @ g.T, 1e-7))
    assert sum(share for share, _, _ in found) == pytest.approx(1)
    assert max(len(values) for _, values, _ in found) <= min(k, rank)


def test_gradients_of_zero_have_no_share():
    assert list(numerical_ranks(np.zeros((3, 3)), TOLERANCE)) == []
    ((_, values, axes),) = numerical_ranks(np.diag([4.0, 0.0, 16.0]), TOLERANCE)
    assert values.tolist() == [4, 2]
    assert not axes[1].any()


def test_trust_grows_from_the_tolerance_to_eight_times_that():
    lengths = np.array([0.0, 0.5, 1, 2, 4, 8, 100]) * TOLERANCE
    found = [trust(length, TOLERANCE) for length in lengths]
    assert found == pytest.approx([0, 0, 0, 1 / 3, 2 / 3, 1, 1])


@pytest.mark.parametrize("method", ["imtl_g", "min", "median", "rmse"])
@pytest.mark.parametrize(
    "limit",
    [
        [[1.0, 0, 0], [1, 0, 0], [1, 0, 0]],
        [[1.0, 0, 0], [2, 0, 0], [0.3, 0, 0]],
        [[1.0, 0, 0], [0, 1, 0], [1, 1, 0]],
        [[1.0, 0, 0], [-2, 0, 0], [0, 1, 0]],
    ],
)
def test_on_the_way_to_dependent_gradients_nothing_jumps(method, limit):
    """Steps of 1.5 % from clearly independent to dependent: each changes the result by 5 % at most."""
    limit, rng = np.array(limit), np.random.default_rng(0)
    away = np.linalg.qr(rng.standard_normal((3, 3)))[0]
    results = []
    for distance in [*np.geomspace(0.1, 1e-9, 1200), 0.0]:
        g = limit + distance * away
        gram = g @ g.T
        of_imtl_g = method == "imtl_g"
        weights = (
            imtl_g_weights(gram, TOLERANCE) if of_imtl_g else aligned_mtl_weights(gram, method, TOLERANCE)
        )
        results.append(weights @ g)
    steps = np.linalg.norm(np.diff(results, axis=0), axis=1)
    assert steps.max() < 0.05

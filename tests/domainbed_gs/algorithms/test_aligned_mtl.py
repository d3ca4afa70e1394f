"""Golden vectors and invariants of Aligned-MTL."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from domainbed_gs.algorithms import aligned_mtl

MODES = ("min", "median", "rmse")
EXACT = 1e-7  # tolerance for gradients in float64


def aligned_mtl_weights(gram, mode="min"):
    return aligned_mtl.aligned_mtl_weights(gram, mode, EXACT)


def test_golden(gram):
    np.testing.assert_allclose(aligned_mtl_weights(gram), [0.316738, 0.355344, 0.30454], atol=1e-6)


@pytest.mark.parametrize("mode", MODES)
@given(k=st.integers(1, 6), seed=st.integers(0, 2**32), log_scale=st.floats(-6, 6))
def test_it_is_the_mean_of_orthogonal_gradients_of_one_length(mode, k, seed, log_scale):
    """By the singular value decomposition of the gradients themselves, at any scale."""
    g = np.random.default_rng(seed).standard_normal((k, 20)) * 10**log_scale
    left, values, right = np.linalg.svd(g, full_matrices=False)
    squares = np.sort(values**2)
    square = {"min": squares[0], "median": squares[(k - 1) // 2], "rmse": squares.mean()}[mode]
    expected = (np.sqrt(square) * left @ right).mean(axis=0)
    found = aligned_mtl_weights(g @ g.T, mode) @ g
    np.testing.assert_allclose(found, expected, rtol=1e-6, atol=1e-6 * 10**log_scale)


@pytest.mark.parametrize("mode", MODES)
@pytest.mark.parametrize("k", [1, 2, 5])
def test_identical_gradients_give_that_gradient(mode, k):
    np.testing.assert_allclose(aligned_mtl_weights(np.full((k, k), 7.0), mode), np.full(k, 1 / k))


@given(st.integers(2, 6), st.integers(0, 2**32))
def test_it_does_not_depend_on_the_order_of_environments(k, seed):
    rng = np.random.default_rng(seed)
    g = rng.standard_normal((k, 20))
    order = rng.permutation(k)
    permuted = aligned_mtl_weights(g[order] @ g[order].T)
    np.testing.assert_allclose(permuted, aligned_mtl_weights(g @ g.T)[order], rtol=1e-6, atol=1e-9)


def test_the_smallest_eigenvalue_is_the_default(rule, gram):
    method = rule("AlignedMTL")
    found = aligned_mtl.aligned_mtl_weights(gram, "min", method.tolerance)
    assert method.weights(gram).tolist() == found.tolist()


@pytest.mark.parametrize("mode", MODES)
def test_gradients_of_zero_give_the_mean(mode):
    assert aligned_mtl_weights(np.zeros((4, 4)), mode).tolist() == [0.25] * 4

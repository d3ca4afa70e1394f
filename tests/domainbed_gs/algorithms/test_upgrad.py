"""Golden vectors and invariants of UPGrad."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy.optimize import nnls

from domainbed_gs.algorithms.upgrad import upgrad_weights


def test_golden(gram):
    np.testing.assert_allclose(upgrad_weights(gram), [0.495711, 0.481146, 0.461485], atol=1e-6)


def test_golden_with_the_regularisation_of_the_authors_code(gram, example):
    regularised = gram / np.trace(gram) + 1e-4 * np.eye(3)
    expected = [2.890946, -1.501574, -1.919255, 0, 0.373367, 0.0589, 0.412634, -0.879123]
    np.testing.assert_allclose(upgrad_weights(regularised) @ example.numpy(), expected, atol=1e-6)


@pytest.mark.parametrize("factor", [5e-4, 1e-12, 1e12])
def test_small_gradients_are_no_different(gram, factor):
    """Below a trace of 1e-4 the code of its authors returns the mean gradient."""
    np.testing.assert_allclose(upgrad_weights(factor**2 * gram), upgrad_weights(gram), rtol=1e-12)


@given(st.integers(1, 10), st.integers(0, 2**32))
def test_it_is_the_mean_of_projections_of_the_gradients_themselves(k, seed):
    g = np.random.default_rng(seed).standard_normal((k, 12)) - 0.3
    projected = [vector + nnls(g.T, -vector)[0] @ g for vector in g]
    np.testing.assert_allclose(upgrad_weights(g @ g.T) @ g, np.mean(projected, axis=0), atol=1e-9)


@given(st.integers(1, 10), st.integers(0, 2**32))
def test_without_conflict_it_is_the_mean(k, seed):
    g = np.abs(np.random.default_rng(seed).standard_normal((k, 12)))
    np.testing.assert_allclose(upgrad_weights(g @ g.T), np.full(k, 1 / k), rtol=1e-15)


def test_a_gradient_of_zero_changes_the_mean_only(gram):
    with_zero = np.zeros((4, 4))
    with_zero[:3, :3] = gram
    expected = np.append(upgrad_weights(gram) * 3 / 4, 1 / 4)
    np.testing.assert_allclose(upgrad_weights(with_zero), expected)

"""Golden vectors E.1 and invariants E.2 of the gradient surgery specification: UPGrad."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.optimize import nnls

from domainbed_gs import surgery


def test_golden(gram):
    np.testing.assert_allclose(surgery.upgrad_weights(gram), [0.495711, 0.481146, 0.461485], atol=1e-6)


def test_golden_with_the_regularisation_of_its_authors_code(gram, example):
    regularised = gram / np.trace(gram) + 1e-4 * np.eye(3)
    expected = [2.890946, -1.501574, -1.919255, 0, 0.373367, 0.0589, 0.412634, -0.879123]
    np.testing.assert_allclose(surgery.upgrad_weights(regularised) @ example.numpy(), expected, atol=1e-6)


@pytest.mark.parametrize("factor", [5e-4, 1e-12, 1e12])
def test_small_gradients_are_no_different(gram, factor):
    """B.13: below a trace of 1e-4 its authors' code returns the mean gradient."""
    np.testing.assert_allclose(
        surgery.upgrad_weights(factor**2 * gram), surgery.upgrad_weights(gram), rtol=1e-12
    )


@settings(deadline=None)
@given(st.integers(1, 10), st.integers(0, 2**32))
def test_it_is_the_mean_of_projections_of_the_gradients_themselves(k, seed):
    g = np.random.default_rng(seed).standard_normal((k, 12)) - 0.3
    projected = [vector + nnls(g.T, -vector)[0] @ g for vector in g]
    np.testing.assert_allclose(surgery.upgrad_weights(g @ g.T) @ g, np.mean(projected, axis=0), atol=1e-9)


@settings(deadline=None)
@given(st.integers(1, 10), st.integers(0, 2**32))
def test_without_conflict_it_is_the_mean(k, seed):
    g = np.abs(np.random.default_rng(seed).standard_normal((k, 12)))
    np.testing.assert_allclose(surgery.upgrad_weights(g @ g.T), np.full(k, 1 / k), rtol=1e-15)


def test_an_environment_without_gradient_changes_the_mean_only(gram):
    with_zero = np.zeros((4, 4))
    with_zero[:3, :3] = gram
    expected = np.append(surgery.upgrad_weights(gram) * 3 / 4, 1 / 4)
    np.testing.assert_allclose(surgery.upgrad_weights(with_zero), expected)

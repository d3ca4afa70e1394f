"""Invariants of DualProj, and of the projection that UPGrad shares."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy.optimize import nnls

from domainbed_gs.algorithms.dual_proj import dual_cone_weights, dual_proj_weights


@given(st.integers(1, 10), st.integers(0, 2**32))
def test_the_projection_equals_the_one_on_the_gradients_themselves(k, seed):
    """Moreau: a vector less its projection is the nearest point of the cone of -g_k, here in P dimensions."""
    rng = np.random.default_rng(seed)
    g = rng.standard_normal((k, 12)) - 0.3
    targets = rng.uniform(size=(3, k))
    for weights, vector in zip(dual_cone_weights(g @ g.T, targets), targets @ g, strict=True):
        explicit = vector + nnls(g.T, -vector)[0] @ g
        np.testing.assert_allclose(weights @ g, explicit, atol=1e-9)


@given(st.integers(1, 10), st.integers(0, 2**32))
def test_a_mean_without_conflict_is_not_changed(k, seed):
    g = np.random.default_rng(seed).standard_normal((k, 12))
    g[(g @ g.mean(axis=0)) < 0] *= -1
    if (g @ g.mean(axis=0) >= 0).all():
        assert dual_proj_weights(g @ g.T).tolist() == [1 / k] * k


def test_the_mean_loses_its_conflicting_part():
    g = np.array([[4.0, 0.0], [-1.0, 1.0]])
    d = dual_proj_weights(g @ g.T) @ g
    np.testing.assert_allclose(d, [1.0, 1.0])  # the mean (1.5, 0.5) less its component along (-1, 1)


def test_a_gradient_of_zero_keeps_its_share():
    gram = np.array([[1.0, -2.0, 0.0], [-2.0, 9.0, 0.0], [0.0, 0.0, 0.0]])
    weights = dual_proj_weights(gram)
    assert weights[2] == 1 / 3
    assert (gram @ weights).tolist() == pytest.approx([0.0, 5 / 3, 0.0], abs=1e-12)

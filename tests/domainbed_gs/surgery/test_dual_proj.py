"""Invariants E.2 of the gradient surgery specification: DualProj, and the projection that UPGrad shares."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.optimize import nnls

from domainbed_gs import surgery
from domainbed_gs.surgery.dual_proj import dual_cone_weights


@settings(deadline=None)
@given(st.integers(1, 10), st.integers(0, 2**32))
def test_the_projection_equals_the_one_on_the_gradients_themselves(k, seed):
    """Moreau: a vector less its projection is the nearest point of the cone of -g_k, here in P dimensions."""
    rng = np.random.default_rng(seed)
    g = rng.standard_normal((k, 12)) - 0.3
    targets = rng.uniform(size=(3, k))
    for weights, vector in zip(dual_cone_weights(g @ g.T, targets), targets @ g, strict=True):
        explicit = vector + nnls(g.T, -vector)[0] @ g
        np.testing.assert_allclose(weights @ g, explicit, atol=1e-9)


@settings(deadline=None)
@given(st.integers(1, 10), st.integers(0, 2**32))
def test_a_mean_without_conflict_stays_as_it_is(k, seed):
    g = np.random.default_rng(seed).standard_normal((k, 12))
    g[(g @ g.mean(axis=0)) < 0] *= -1
    if (g @ g.mean(axis=0) >= 0).all():
        assert surgery.dual_proj_weights(g @ g.T).tolist() == [1 / k] * k


def test_the_mean_loses_what_conflicts():
    g = np.array([[4.0, 0.0], [-1.0, 1.0]])
    d = surgery.dual_proj_weights(g @ g.T) @ g
    np.testing.assert_allclose(d, [1.0, 1.0])  # the mean (1.5, 0.5) less its component along (-1, 1)


def test_an_environment_without_gradient_keeps_its_share():
    gram = np.array([[1.0, -2.0, 0.0], [-2.0, 9.0, 0.0], [0.0, 0.0, 0.0]])
    weights = surgery.dual_proj_weights(gram)
    assert weights[2] == 1 / 3
    assert (gram @ weights).tolist() == pytest.approx([0.0, 5 / 3, 0.0], abs=1e-12)

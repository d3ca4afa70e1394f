"""Golden vectors and invariants of IMTL-G."""

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from domainbed.gradients.gram import NoDirection
from domainbed_gs.algorithms import imtl_g

EXACT = 1e-7  # tolerance for gradients in float64


def imtl_g_weights(gram):
    return imtl_g.imtl_g_weights(gram, EXACT)


def test_golden(gram):
    np.testing.assert_allclose(imtl_g_weights(gram), [0.334464, 0.358042, 0.307494], atol=1e-6)


@given(st.integers(1, 6), st.integers(0, 2**32), st.floats(-6, 6))
def test_projections_are_equal_and_weights_sum_to_1(k, seed, log_scale):
    rng = np.random.default_rng(seed)
    scales = 10 ** rng.uniform(-1, 1, (k, 1)) * 10**log_scale
    g = rng.standard_normal((k, 40)) * scales
    weights = imtl_g_weights(g @ g.T)
    assert weights.sum() == pytest.approx(1)
    projections = g @ (weights @ g) / np.linalg.norm(g, axis=1)
    np.testing.assert_allclose(projections, projections[0], rtol=1e-6)


@given(st.integers(2, 6), st.integers(0, 2**32))
def test_it_does_not_depend_on_the_order_of_environments(k, seed):
    rng = np.random.default_rng(seed)
    g = rng.standard_normal((k, 20))
    order = rng.permutation(k)
    permuted = imtl_g_weights(g[order] @ g[order].T)
    np.testing.assert_allclose(permuted, imtl_g_weights(g @ g.T)[order], rtol=1e-6)


def test_two_environments_give_the_sum_of_unit_gradients_up_to_length(example):
    a, b = g = example[:2]
    found = torch.from_numpy(imtl_g_weights((g @ g.T).numpy())) @ g
    expected = a / a.norm() + b / b.norm()
    torch.testing.assert_close(found / found.norm(), expected / expected.norm())


@given(st.data(), st.integers(1, 5))
def test_identical_gradients_give_that_gradient(gradients, data, k):
    g = data.draw(gradients(1, 1)).repeat(k, 1)
    if g.any():
        np.testing.assert_allclose(imtl_g_weights((g @ g.T).numpy()), np.full(k, 1 / k))


def test_a_gradient_of_zero_has_no_weight():
    np.testing.assert_allclose(imtl_g_weights(np.diag([4.0, 0.0, 16.0])), [2 / 3, 0, 1 / 3])


@pytest.mark.parametrize("gram", [np.zeros((3, 3)), np.array([[1.0, -1.0], [-1.0, 1.0]])])
def test_where_weights_cannot_sum_to_1_there_is_no_direction(gram):
    with pytest.raises(NoDirection, match="sum 1"):
        imtl_g_weights(gram)


def test_weights_are_never_large():
    """In three dimensions the sum before normalisation is nearly 0 in some draws."""
    rng = np.random.default_rng(0)
    sums = []
    for _ in range(2000):
        g = rng.standard_normal((3, 3)) * 10 ** rng.uniform(-1, 1, (3, 1))
        try:
            sums.append(np.abs(imtl_g_weights(g @ g.T)).sum())
        except NoDirection:
            sums.append(0.0)
    assert 50 < max(sums) <= 100
    assert 0.0 in sums

"""Golden vectors and invariants of MGDA."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from domainbed_gs.algorithms.mgda import mgda_weights


def test_golden(gram):
    np.testing.assert_allclose(mgda_weights(gram), [0.317044, 0.389154, 0.293802], atol=1e-6)


@given(st.integers(1, 10), st.integers(0, 2**32))
def test_gradients_with_weight_have_the_squared_norm_as_inner_product(k, seed):
    g = np.random.default_rng(seed).standard_normal((k, 20)) + 0.5
    weights = mgda_weights(g @ g.T)
    d = weights @ g
    np.testing.assert_allclose((g @ d)[weights > 1e-12], d @ d, rtol=1e-8)


@pytest.mark.parametrize(
    ("cosine", "norms", "expected"),
    [
        (0.0, (1.0, 2.0), (0.8, 0.2)),
        (0.5, (1.0, 2.0), (1.0, 0.0)),  # the shorter one is nearest to 0; common solvers return 0.999
        (0.9, (3.0, 1.0), (0.0, 1.0)),
        (-1.0, (1.0, 3.0), (0.75, 0.25)),
    ],
)
def test_two_environments(cosine, norms, expected):
    gram = np.array([[1, cosine], [cosine, 1]]) * np.outer(norms, norms)
    np.testing.assert_allclose(mgda_weights(gram), expected, atol=1e-15)


def test_a_weight_of_1e_9_is_not_rounded_to_0():
    """The objective changes by 1e-18 only."""
    products = np.array([[1.0, 1.0 - 1e-9], [1.0 - 1e-9, 2.0]])
    first = (2.0 - (1.0 - 1e-9)) / (1.0 + 2.0 - 2 * (1.0 - 1e-9))
    assert mgda_weights(products)[1] == pytest.approx(1 - first, rel=1e-6)


def test_gradients_of_zero_have_all_the_weight():
    assert mgda_weights(np.diag([4.0, 0.0, 16.0, 0.0])).tolist() == [0, 0.5, 0, 0.5]

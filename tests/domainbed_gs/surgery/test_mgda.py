"""Golden vectors E.1 and invariants E.2 of the gradient surgery specification: MGDA."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from domainbed_gs import surgery


def test_golden(gram):
    np.testing.assert_allclose(surgery.mgda_weights(gram), [0.317044, 0.389154, 0.293802], atol=1e-6)


@settings(deadline=None)
@given(st.integers(1, 10), st.integers(0, 2**32))
def test_environments_with_weight_have_the_product_of_the_squared_norm(k, seed):
    g = np.random.default_rng(seed).standard_normal((k, 20)) + 0.5
    weights = surgery.mgda_weights(g @ g.T)
    d = weights @ g
    np.testing.assert_allclose((g @ d)[weights > 1e-12], d @ d, rtol=1e-8)


@pytest.mark.parametrize(
    ("cosine", "norms", "expected"),
    [
        (0.0, (1.0, 2.0), (0.8, 0.2)),
        (0.5, (1.0, 2.0), (1.0, 0.0)),  # the shorter one is nearest to 0; solvers in use return 0.999
        (0.9, (3.0, 1.0), (0.0, 1.0)),
        (-1.0, (1.0, 3.0), (0.75, 0.25)),
    ],
)
def test_two_environments(cosine, norms, expected):
    gram = np.array([[1, cosine], [cosine, 1]]) * np.outer(norms, norms)
    np.testing.assert_allclose(surgery.mgda_weights(gram), expected, atol=1e-15)


def test_a_weight_of_1e_9_is_not_taken_for_0():
    """The objective changes by 1e-18 only."""
    products = np.array([[1.0, 1.0 - 1e-9], [1.0 - 1e-9, 2.0]])
    first = (2.0 - (1.0 - 1e-9)) / (1.0 + 2.0 - 2 * (1.0 - 1e-9))
    assert surgery.mgda_weights(products)[1] == pytest.approx(1 - first, rel=1e-6)


def test_environments_without_gradient_have_all_the_weight():
    assert surgery.mgda_weights(np.diag([4.0, 0.0, 16.0, 0.0])).tolist() == [0, 0.5, 0, 0.5]

import weakref

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays

from domainbed.gradients.sign_statistics import sign_statistics


def stacks(min_k=1, max_k=6):
    """K gradients (K, P) with zeros and ties."""
    values = st.one_of(st.integers(-3, 3).map(float), st.floats(-100, 100))
    shapes = st.tuples(st.integers(min_k, max_k), st.integers(1, 9))
    return shapes.flatmap(lambda shape: arrays(np.float64, shape, elements=values)).map(torch.from_numpy)


@settings(deadline=None)
@given(stacks(min_k=2))
def test_streamed_is_stacked(stack):
    statistics = sign_statistics(stack, variance=True)
    torch.testing.assert_close(statistics.mean, stack.mean(0))
    torch.testing.assert_close(statistics.agreement, stack.sign().mean(0).abs(), rtol=0, atol=0)
    torch.testing.assert_close(statistics.variance, stack.var(0), rtol=1e-9, atol=1e-9)


def test_one_gradient_has_no_variance():
    gradient = torch.tensor([2.0, 0.0, -3.0])
    statistics = sign_statistics([gradient], variance=True)
    assert torch.equal(statistics.mean, gradient)
    assert statistics.agreement.tolist() == [1, 0, 1]
    assert statistics.variance.isnan().all()
    assert sign_statistics([gradient]).variance is None


def test_a_small_variance_beside_a_large_mean_does_not_cancel():
    torch.manual_seed(0)
    stack = 1000 + 0.1 * torch.randn(5, 100)
    exact = stack.double().var(0)
    streamed = sign_statistics(stack, variance=True).variance
    torch.testing.assert_close(streamed.double(), exact, rtol=0.02, atol=0)
    squares = (stack.square().mean(0) - stack.mean(0).square()) * 5 / 4
    assert (squares.double() / exact - 1).abs().max() > 1


@pytest.mark.parametrize("k", [127, 128, 300])
def test_signs_of_many_gradients_do_not_overflow(k):
    assert sign_statistics(iter([torch.ones(2)] * k)).agreement.tolist() == [1, 1]


def test_gradients_are_let_go_one_by_one_and_left_as_they_were():
    alive = []

    def stream():
        for k in range(5):
            assert sum(each() is not None for each in alive) <= 1
            gradient = torch.full((3,), float(k))
            alive.append(weakref.ref(gradient))
            yield gradient
            assert gradient.tolist() == [k] * 3

    assert sign_statistics(stream(), variance=True).mean.tolist() == [2, 2, 2]

"""Gradients to try methods on."""

import numpy as np
import pytest
import torch
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays

# The machine may be busy; nothing here is slow by itself.
settings.register_profile("no_deadline", deadline=None)
settings.load_profile("no_deadline")


def make_gradients(min_k=1, max_k=5, max_p=12):
    values = st.one_of(
        st.integers(-3, 3).map(float), st.floats(-1e3, 1e3).filter(lambda v: v == 0 or abs(v) > 1e-3)
    )
    shapes = st.tuples(st.integers(min_k, max_k), st.integers(1, max_p))
    return shapes.flatmap(lambda shape: arrays(np.float64, shape, elements=values)).map(torch.from_numpy)


@pytest.fixture(scope="session")
def gradients():
    """`gradients(min_k, max_k, max_p)`: a strategy of (K, P), with zeros, ties, and scales 1e-3 to 1e3."""
    return make_gradients


@pytest.fixture(scope="session")
def example():
    """The gradients (3, 8) of the golden vectors, gradient surgery specification E.1."""
    rows = [[3, -4, -1, 0, -2, 0, -2, 3], [1, 1, -2, 0, -1, 3, 1, -3], [2, 0, -1, 0, 4, -3, 2, -2]]
    return torch.tensor(rows, dtype=torch.float64)


@pytest.fixture(scope="session")
def gram(example):
    """Their inner products."""
    return np.array([[43, -8, -11], [-8, 26, -1], [-11, -1, 38]], dtype=np.float64)


@pytest.fixture(scope="session")
def others():
    """`others(k)`: for each environment all others, in ascending order."""
    return lambda k: [[j for j in range(k) if j != i] for i in range(k)]

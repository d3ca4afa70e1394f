"""Tolerances of Gram rules, and weights that their gradients' dtype cannot hold."""

import numpy as np
import pytest
import torch

from domainbed.gradients.gram import combine_by_weights, length_tolerance
from domainbed.gradients.pieces import Piece, Rows, Span
from domainbed.process_group import SINGLE_PROCESS


def test_tolerances_come_from_the_dtype_and_the_number_of_components():
    assert length_tolerance(torch.float32, 2000) == 2048 * 2.0**-23
    assert length_tolerance(torch.float32, 10**8) == length_tolerance(torch.float32, 1)
    of_float64 = [length_tolerance(torch.float64, size) for size in (1, 10**4, 10**8)]
    np.testing.assert_allclose(of_float64, 2.0**-24 * np.array([1, 10, 100]))
    assert length_tolerance(torch.bfloat16, 2000) == 1 / 16


@pytest.mark.parametrize("weight", [1e40, -1e40])
def test_a_weight_beyond_the_dtype_makes_no_nan_of_tiny_gradients(weight):
    rows = [torch.tensor([1.0, 2.0, 3.0]), torch.tensor([1e-40, 0.0, -1e-40])]
    combined = combine_by_weights(
        iter([Piece([Span(0, 3)], Rows(rows))]),
        lambda gram: np.array([1.0, weight]),
        0.5,
        1.0,
        torch.full((3,), torch.nan),
        False,
        SINGLE_PROCESS,
    )
    assert combined.gradient.isfinite().all()
    assert combined.gradient[1] == 2

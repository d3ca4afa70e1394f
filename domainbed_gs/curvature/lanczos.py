"""The largest eigenvalue of a Hessian by Lanczos's method (Golub and Van Loan, Matrix Computations, 10.1)."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from domainbed_gs.curvature.losses import Loss
from domainbed_gs.curvature.vectors import dot, gaussian, norm


@dataclass(frozen=True)
class Eigenvalue:
    """An estimate of a largest eigenvalue. It is never above the true one, except for rounding.

    Attributes:
        value: the largest Ritz value; NaN, as the error, if products are not finite.
        error: norm of its residual: an eigenvalue lies within this distance of it.
        products: number of Hessian-vector products.
    """

    value: float
    error: float
    products: int


def largest_eigenvalue(
    loss: Loss,
    parameters: Tensor,
    counters: tuple[int, ...],
    most: int = 30,
    tolerance: float = 1e-3,
    advance: Callable[[], None] = lambda: None,
) -> Eigenvalue:
    """The (algebraically) largest eigenvalue of the Hessian of `loss` at `parameters` (P,).

    Basis vectors are not kept and not orthogonalised again, which only repeats eigenvalues that have
    converged (Paige 1976), so that two vectors of P numbers are enough.

    Args:
        loss: the loss.
        parameters: (P,).
        counters: counters of the random numbers in the first basis vector.
        most: most Hessian-vector products.
        tolerance: stop when the error is at most this share of the eigenvalue.
        advance: called after each Hessian-vector product.
    """
    v = gaussian(parameters, counters)
    v.div_(norm(v))
    w = torch.zeros_like(v)
    diagonal: list[float] = []
    beside: list[float] = []
    for _ in range(min(most, len(parameters))):
        loss.add_hessian_product(parameters, v, w)
        advance()
        diagonal.append(dot(v, w))
        w.add_(v, alpha=-diagonal[-1])
        length = norm(w)
        if not math.isfinite(length):
            return Eigenvalue(math.nan, math.nan, len(diagonal))
        value, error = _largest(diagonal, beside, length)
        if error <= tolerance * abs(value):
            break
        beside.append(length)
        v, w = w.div_(length), v.mul_(-length)  # w begins with what the recurrence subtracts
    return Eigenvalue(value, error, len(diagonal))


def _largest(diagonal: list[float], beside: list[float], length: float) -> tuple[float, float]:
    """The largest eigenvalue of the tridiagonal matrix, and its residual in the full space."""
    matrix = np.diag(diagonal) + np.diag(beside, 1) + np.diag(beside, -1)
    values, vectors = np.linalg.eigh(matrix)
    return float(values[-1]), length * abs(float(vectors[-1, -1]))

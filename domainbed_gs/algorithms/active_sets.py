"""Shared by the exact solvers of Gram methods: unit gradients and the supports to try.

Each of their problems has a solution that is zero outside some support on which the gradients are
independent, and on a given support it solves a linear system. So the solvers try all supports, and keep
the solution that violates the optimality conditions least. That measure is of first order in
the error of the weights, where the objective is of second order and cannot tell 1e-9 from 0.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from itertools import combinations

import numpy as np

MAX_ENUMERATED = 8  # environments; 255 supports, about 10 ms


@dataclass(frozen=True)
class UnitGram:
    """Inner products of gradients divided by their norms: solvers then see no scale, however small.

    Attributes:
        cosines: (K, K) float64; 0 for a gradient that is zero, 1 on the rest of the diagonal.
        norms: (K,) float64; 1 for a gradient that is zero, so that one can divide by them.
        zero: (K,) bool, which gradients are zero.
    """

    cosines: np.ndarray
    norms: np.ndarray
    zero: np.ndarray


def unit_gram(gram: np.ndarray) -> UnitGram:
    """Norms and cosines of K gradients from their inner products (K, K) float64."""
    zero = np.diag(gram) <= 0
    norms = np.sqrt(np.where(zero, 1.0, np.diag(gram)))
    cosines = gram / norms[:, None] / norms
    cosines[zero] = cosines[:, zero] = 0.0
    return UnitGram(cosines, norms, zero)


def has_gradient(gram: np.ndarray) -> bool:
    """Whether there is something to solve: not if all gradients are zero, or one is NaN or infinite."""
    return bool(np.isfinite(gram).all() and np.trace(gram) > 0)


def mean_weights(num_environments: int) -> np.ndarray:
    """1/K for each environment (K,)."""
    return np.full(num_environments, 1 / num_environments)


def supports(num_environments: int) -> Iterator[np.ndarray]:
    """The 2^K - 1 sets of environments but the empty one, as indices, small sets first."""
    for size in range(1, num_environments + 1):
        for chosen in combinations(range(num_environments), size):
            yield np.array(chosen)


def solve(matrix: np.ndarray, right: np.ndarray) -> np.ndarray | None:
    """Solution of a linear system, or None where there is no single one: a smaller support has it then."""
    try:
        solution = np.linalg.solve(matrix, right)
    except np.linalg.LinAlgError:
        return None
    return solution if np.isfinite(solution).all() else None


def square_root(cosines: np.ndarray) -> np.ndarray:
    """R (K, K) with R^T R = cosines: K vectors, as columns, with these inner products."""
    eigenvalues, vectors = np.linalg.eigh(cosines)
    root: np.ndarray = np.sqrt(eigenvalues.clip(min=0.0))[:, None] * vectors.T
    return root

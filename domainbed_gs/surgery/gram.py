"""The inner products of K gradients, and what a Gram method's weights make of the gradients."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import combinations

import numpy as np
import torch
from torch import Tensor

_PART = 2**20  # components at a time in float64


class NoDirection(ArithmeticError):
    """A Gram method defines no update for these gradients."""


def gram_matrix(gradients: Sequence[Tensor]) -> Tensor:
    """Inner products (K, K) of K gradients (P,), accumulated in float64, on their device.

    In float32, or TF32, the error over tens of millions of terms can flip the sign of a product.
    """
    gram = torch.zeros(len(gradients), len(gradients), dtype=torch.float64, device=gradients[0].device)
    # In parts, so that the float64 copies stay small.
    for parts in zip(*(gradient.split(_PART) for gradient in gradients), strict=True):
        rows = torch.stack(parts).double()
        gram += rows @ rows.T
    return gram


def combine(gradients: Sequence[Tensor], weights: np.ndarray) -> Tensor:
    """sum_k w_k g_k (P,) of K gradients (P,) and K weights."""
    result = gradients[0] * float(weights[0])
    for gradient, weight in zip(gradients[1:], weights[1:], strict=True):
        result.add_(gradient, alpha=float(weight))
    return result


def norm_of(gram: np.ndarray, weights: np.ndarray) -> float:
    """|sum_k w_k g_k| from inner products (K, K) and weights (K,)."""
    return float(np.sqrt(max(weights @ gram @ weights, 0.0)))


def mean_cosine(gram: np.ndarray) -> float:
    """Mean cosine similarity over pairs of K gradients; 0 with a zero gradient, NaN for K = 1."""
    norms = np.sqrt(np.diag(gram))
    cosines = [
        gram[i, j] / (norms[i] * norms[j]) if norms[i] and norms[j] else 0.0
        for i, j in combinations(range(len(gram)), 2)
    ]
    return float(np.mean(cosines)) if cosines else float("nan")

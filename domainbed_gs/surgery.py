"""Gradient surgery: one update direction from K environments' gradients, as pure functions.

A gradient is a flat tensor (P,). Sign methods take the K gradients one at a time and hold two tensors of
size P whatever K is; Gram methods need the inner products only and return K weights. Sections, equations
and departures are those of the ICCV 2021 paper (Mansilla et al., arXiv 2108.01621).
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from itertools import combinations
from typing import Literal

import numpy as np
import torch
from torch import Tensor

Order = Literal["independent", "shared", "fixed"]
Reduction = Literal["sum", "mean"]

_CONFLICT = 2  # a code beside the signs -1, 0 and 1


@dataclass(frozen=True)
class Consensus:
    """What K gradients agree on, component by component.

    Attributes:
        total: sum of the K gradients (P,).
        agree: Phi, whether all K signs are equal (P,) bool (paper, section 3.2).
        cosine: mean cosine similarity over pairs of environments, 0-d; NaN for one environment.
        num_environments: K.
    """

    total: Tensor
    agree: Tensor
    cosine: Tensor
    num_environments: int

    @property
    def agreement(self) -> Tensor:
        """Share of components that agree, 0-d; 2^(1-K) for random signs."""
        return self.agree.float().mean()


def sign_consensus(gradients: Iterable[Tensor], zero_agrees: bool = False) -> Consensus:
    """Sum and agreement of K gradients (P,), each looked at once.

    Args:
        gradients: consumed one by one; none is kept.
        zero_agrees: whether a component that is 0 in every environment agrees, as the paper's formula
            says read literally. The authors' code, and the default here, counts it as conflict.
    """
    total = signs = unit_sum = None
    count = 0
    for gradient in gradients:
        count += 1
        sign = gradient.sign().to(torch.int8)
        unit = gradient / gradient.norm().clamp_min(torch.finfo(gradient.dtype).tiny)
        if total is None or signs is None or unit_sum is None:
            total, signs, unit_sum = gradient.clone(), sign, unit
        else:
            total += gradient
            signs = torch.where(signs == sign, signs, _CONFLICT)
            unit_sum += unit
    if total is None or signs is None or unit_sum is None:
        raise ValueError("a consensus needs at least one gradient")
    agree = signs != _CONFLICT if zero_agrees else signs.abs() == 1
    # |sum of K unit vectors|^2 = K + 2 * (sum of cosines over pairs); a zero gradient has cosine 0.
    pairs = count * (count - 1)
    squared_units = unit_sum.double().square().sum()
    cosine = (squared_units - count) / pairs if pairs else torch.full_like(squared_units, torch.nan)
    return Consensus(total, agree, cosine, count)


def agr_sum(consensus: Consensus, reduction: Reduction = "sum") -> Tensor:
    """Agr-Sum (P,): the summed gradient where all environments agree, 0 elsewhere (section 3.3)."""
    scale = 1 if reduction == "sum" else consensus.num_environments
    return torch.where(consensus.agree, consensus.total, 0) / scale


def agr_rand_sigma(consensus: Consensus) -> Tensor:
    """Standard deviation of Agr-Rand's noise, 0-d: mean |sum_k g_k| over the agreeing components.

    0 if none agrees (the authors' code gives NaN there).
    """
    kept = torch.where(consensus.agree, consensus.total, 0).abs().sum()
    return kept / consensus.agree.sum().clamp_min(1)


def agr_rand(consensus: Consensus, generator: torch.Generator, reduction: Reduction = "sum") -> Tensor:
    """Agr-Rand (P,): Agr-Sum with Normal(0, sigma^2) where the environments disagree (section 3.3)."""
    total = consensus.total
    noise = torch.randn(total.shape, generator=generator, dtype=total.dtype, device=total.device)
    scale = 1 if reduction == "sum" else consensus.num_environments
    return torch.where(consensus.agree, total, agr_rand_sigma(consensus) * noise) / scale


def gram_matrix(gradients: Sequence[Tensor]) -> Tensor:
    """Inner products (K, K) of K gradients (P,), accumulated in float64, on their device.

    In float32, or TF32, the error over tens of millions of terms can flip the sign of a product.
    """
    gram = torch.empty(len(gradients), len(gradients), dtype=torch.float64, device=gradients[0].device)
    for i, row in enumerate(gradients):
        row = row.double()
        for j in range(i + 1):
            gram[i, j] = gram[j, i] = row @ gradients[j].double()
    return gram


def sign_agreement(gradients: Sequence[Tensor]) -> Tensor:
    """Share of components in which K gradients (P,) have the same sign, not 0; 0-d."""
    signs = gradients[0].sign()
    agree = signs != 0
    for gradient in gradients[1:]:
        agree &= gradient.sign() == signs
    return agree.float().mean()


def pcgrad_orders(
    num_environments: int, rng: np.random.Generator, order: Order, include_self: bool = False
) -> list[list[int]]:
    """For each environment, the order in which the others are visited.

    Args:
        num_environments: K.
        rng: where random orders come from.
        order: independent: a random one for each (Yu et al. 2020); shared: one permutation for all (the
            ICCV authors' code); fixed: ascending.
        include_self: whether an environment is visited by itself too; after two projections this can
            change the result.
    """
    shared = rng.permutation(num_environments) if order == "shared" else np.arange(num_environments)
    orders = []
    for i in range(num_environments):
        visited = rng.permutation(num_environments) if order == "independent" else shared
        orders.append([int(j) for j in visited if j != i or include_self])
    return orders


def pcgrad_weights(gram: np.ndarray, orders: Sequence[Sequence[int]]) -> np.ndarray:
    """PCGrad (Yu et al. 2020, arXiv 2001.06782, algorithm 1) on inner products alone.

    Environment i starts from v = g_i and, for each j in `orders[i]` with v.g_j < 0, loses its component
    along the original g_j. With v = sum_m c_m g_m, v.g_j is (gram c)_j.

    Args:
        gram: (K, K) float64.
        orders: K sequences of environments to visit.

    Returns: (K,) weights w; the update is sum_k w_k g_k.
    """
    weights = np.zeros(len(gram))
    for i, order in enumerate(orders):
        c = np.zeros(len(gram))
        c[i] = 1.0
        for j in order:
            product = gram[j] @ c
            if product < 0:
                # Negative only where g_j is not 0.
                c[j] -= product / gram[j, j]
        weights += c
    return weights


def combine(gradients: Sequence[Tensor], weights: np.ndarray) -> Tensor:
    """sum_k w_k g_k (P,) of K gradients (P,) and K weights."""
    result = gradients[0] * float(weights[0])
    for gradient, weight in zip(gradients[1:], weights[1:], strict=True):
        result.add_(gradient, alpha=float(weight))
    return result


def mean_cosine(gram: np.ndarray) -> float:
    """Mean cosine similarity over pairs of K gradients; 0 with a zero gradient, NaN for K = 1."""
    norms = np.sqrt(np.diag(gram))
    cosines = [
        gram[i, j] / (norms[i] * norms[j]) if norms[i] and norms[j] else 0.0
        for i, j in combinations(range(len(gram)), 2)
    ]
    return float(np.mean(cosines)) if cosines else float("nan")

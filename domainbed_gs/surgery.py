"""Gradient surgery: one update direction from K environments' gradients, as pure functions.

A gradient is a flat tensor (P,). Sign methods take the K gradients one at a time and hold a few tensors of
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

_CONFLICT = 2  # a code beside the signs -1, 0 and 1
_PART = 2**20  # components at a time in float64


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
    nonzero = torch.zeros(())
    for gradient in gradients:
        count += 1
        sign = gradient.sign().to(torch.int8)
        norm = torch.linalg.vector_norm(gradient, dtype=torch.float64)
        unit = gradient / torch.where(norm > 0, norm, 1).to(gradient.dtype)
        nonzero = nonzero.to(norm.device) + (norm > 0)
        if total is None or signs is None or unit_sum is None:
            total, signs, unit_sum = gradient.clone(), sign, unit
        else:
            total += gradient
            signs = torch.where(signs == sign, signs, _CONFLICT)
            unit_sum += unit
    if total is None or signs is None or unit_sum is None:
        raise ValueError("a consensus needs at least one gradient")
    agree = signs != _CONFLICT if zero_agrees else signs.abs() == 1
    # |sum of n unit vectors|^2 = n + 2 * (sum of cosines over pairs); a zero gradient has cosine 0.
    twice_cosines = torch.linalg.vector_norm(unit_sum, dtype=torch.float64).square() - nonzero
    cosine = twice_cosines / (count * (count - 1)) if count > 1 else torch.full_like(twice_cosines, torch.nan)
    return Consensus(total, agree, cosine, count)


def agr_sum(consensus: Consensus) -> Tensor:
    """Agr-Sum (P,): the summed gradient where all environments agree, 0 elsewhere (section 3.3)."""
    return torch.where(consensus.agree, consensus.total, 0)


def agr_rand_sigma(kept: Tensor, agree: Tensor, sizes: Sequence[int] | None = None) -> Tensor:
    """Standard deviation of Agr-Rand's noise: mean |sum_k g_k| over the agreeing components.

    Args:
        kept: Agr-Sum's gradient (P,).
        agree: where the environments agree (P,) bool.
        sizes: lengths of parts (they sum to P) that get a sigma each; None for one over all.

    Returns: 0-d, or (P,) with `sizes`. 0 where none agrees (the authors' code gives NaN there).
    """
    if sizes is None:
        return kept.abs().sum() / agree.sum().clamp_min(1)
    parts = zip(kept.split(list(sizes)), agree.split(list(sizes)), strict=True)
    sigmas = torch.stack([agr_rand_sigma(values, mask) for values, mask in parts])
    return sigmas.repeat_interleave(torch.tensor(sizes, device=kept.device))


def agr_rand(kept: Tensor, agree: Tensor, sigma: Tensor, generator: torch.Generator) -> Tensor:
    """Agr-Rand (P,): Agr-Sum's gradient, with Normal(0, sigma^2) where the environments disagree."""
    noise = torch.randn(kept.shape, generator=generator, dtype=kept.dtype, device=kept.device)
    return torch.where(agree, kept, sigma * noise)


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

"""PCGrad (Yu et al. 2020, arXiv 2001.06782)."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Literal

import numpy as np

Order = Literal["independent", "shared", "fixed"]


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

"""MoDo (Chen et al. 2024, "Three-way trade-off in multi-objective learning", JMLR 25)."""

from __future__ import annotations

from typing import Any

import numpy as np
import torch
from torch import Tensor

from domainbed.algorithms import REGISTRY
from domainbed.algorithms.facts import Facts
from domainbed.hparams import Hparam, choice, log10_uniform
from domainbed_gs.algorithms.active_sets import mean_weights
from domainbed_gs.algorithms.independent_minibatches import IndependentMinibatches, nearest_in_simplex


@REGISTRY.register()
class MoDo(IndependentMinibatches):
    """MoDo (Chen et al. 2024): MGDA's weights, improved by one small step an update.

    Each minibatch is cut into two halves, with gradients J1 and J2 (K, P). The weights lambda move to the
    nearest vector in the simplex to lambda - gamma (J1 J2^T lambda + rho lambda), where gamma is `modo_gamma`
    and rho is `modo_rho`. The update is lambda_k times the mean of environment k's two gradients. For
    gamma = 0 it is the mean gradient. gamma is relative to the squared length of the gradients.

    Attributes:
        shares: lambda (K,).
    """

    FACTS = Facts(
        year=2024,
        paper=(
            "Chen et al., Three-way trade-off in multi-objective learning: Optimization, generalization "
            "and conflict-avoidance, JMLR 25, arXiv 2305.20057"
        ),
        idea="MGDA's weights, improved by one small step an update, from independent minibatches",
        memory="2.7 * K",
        cost="The parts of a minibatch together cost its arithmetic. Less memory in a joint pass.",
        one_environment="ERM",
        departures=(
            "Each minibatch is cut into two, and both halves make the update (LibMTL: a third minibatch)."
        ),
    )

    DISTRIBUTED = True
    HPARAMS = {
        "modo_gamma": Hparam(0.1, log10_uniform(-3, 0), "step size of the weights", at_least=0),
        "modo_rho": Hparam(0.1, choice(0.0, 0.01, 0.1), "pull of the weights towards equality", at_least=0),
    }
    STATE = ("shares",)

    def __init__(
        self, input_shape: tuple[int, ...], num_classes: int, num_domains: int, hparams: dict[str, Any]
    ) -> None:
        super().__init__(input_shape, num_classes, num_domains, hparams)
        self.shares: Tensor = torch.from_numpy(mean_weights(num_domains))

    def part_weights(self, products: np.ndarray) -> np.ndarray:
        shares = self.shares.numpy()
        slope = products @ shares + self.hparams["modo_rho"] * shares
        shares = nearest_in_simplex(shares - self.hparams["modo_gamma"] * slope)
        self.shares = torch.from_numpy(shares)
        return np.stack([shares / 2, shares / 2])

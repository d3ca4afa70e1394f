"""SDMGrad (Xiao, Ban and Ji 2023, "Direction-oriented multi-objective learning")."""

from __future__ import annotations

from typing import Any

import numpy as np
import torch
from torch import Tensor

from domainbed.algorithms import REGISTRY
from domainbed.algorithms.facts import Facts
from domainbed.hparams import Hparam, choice, const, log10_uniform
from domainbed_gs.algorithms.active_sets import mean_weights
from domainbed_gs.algorithms.independent_minibatches import IndependentMinibatches, nearest_in_simplex

_EPS = 1e-8


def sdmgrad_shares(
    products: np.ndarray, shares: np.ndarray, pull: float, lr: float, momentum: float, steps: int
) -> np.ndarray:
    """The shares (K,) after some steps of projected descent.

    Args:
        products: A (K, K), inner products of the gradients of two independent minibatches.
        shares: w (K,), where to start.
        pull: lambda, weight of the mean gradient.
        lr: step size on A divided by the squared mean length of the gradients.
        momentum: of the steps; it starts at 0.
        steps: their number.
    """
    lengths = np.sqrt(products.diagonal().clip(min=0))
    products = products / (lengths.mean() ** 2 + _EPS)
    velocity = np.zeros(len(shares))
    for _ in range(steps):
        velocity = momentum * velocity + products @ (shares + pull / len(shares))
        shares = nearest_in_simplex(shares - lr * velocity)
    return shares


@REGISTRY.register()
class SDMGrad(IndependentMinibatches):
    """SDMGrad (Xiao, Ban and Ji 2023): MGDA's weights pulled towards the mean, from independent minibatches.

    Each minibatch is cut into three parts, with gradients J1, J2, J3 (K, P). From their last values, the
    shares w take `sdmgrad_steps` steps along -A (w + lambda / K), with momentum and in the simplex, where
    A = J1 J2^T divided by the squared mean length of the gradients, and lambda is `sdmgrad_lambda`. The
    update is J3^T (w + lambda / K) / (1 + lambda): the third part alone, which w does not depend on. A large
    lambda makes it that part's mean gradient.

    `sdmgrad_lr` is the size of the steps. With that of TorchJD's class, 10, they jump between the corners of
    the simplex, and rounding may decide where they end; with 0.1 they do not.

    Attributes:
        shares: w (K,).
    """

    FACTS = Facts(
        year=2023,
        paper=(
            "Xiao, Ban and Ji, Direction-oriented multi-objective learning: Simple and provable "
            "stochastic algorithms, NeurIPS, arXiv 2305.18409"
        ),
        idea="MGDA's weights pulled towards the mean, from independent minibatches",
        memory="4 * K",
        cost="The parts of a minibatch together cost its arithmetic. Less memory in a joint pass.",
        one_environment="ERM on a third of the minibatch",
        departures=(
            "Each minibatch is cut into three (public code: draws three). `sdmgrad_lr` is 0.1 (TorchJD: "
            "10, which jumps between corners)."
        ),
    )

    DISTRIBUTED = True
    PARTS = 3
    HPARAMS = {
        "sdmgrad_lambda": Hparam(
            0.3, choice(0.1, 0.3, 0.6, 1.0), "lambda, weight of the mean gradient", at_least=0
        ),
        "sdmgrad_lr": Hparam(0.1, log10_uniform(-2, 0), "size of the shares' steps", at_least=0),
        "sdmgrad_momentum": Hparam(0.5, const(0.5), "momentum of the shares' steps", at_least=0, below=1),
        "sdmgrad_steps": Hparam(20, const(20), "steps of the shares in each update", at_least=0),
    }
    STATE = ("shares",)

    def __init__(
        self, input_shape: tuple[int, ...], num_classes: int, num_domains: int, hparams: dict[str, Any]
    ) -> None:
        super().__init__(input_shape, num_classes, num_domains, hparams)
        self.shares: Tensor = torch.from_numpy(mean_weights(num_domains))

    def part_weights(self, products: np.ndarray) -> np.ndarray:
        pull: float = self.hparams["sdmgrad_lambda"]
        shares = sdmgrad_shares(
            products,
            self.shares.numpy(),
            pull,
            self.hparams["sdmgrad_lr"],
            self.hparams["sdmgrad_momentum"],
            self.hparams["sdmgrad_steps"],
        )
        self.shares = torch.from_numpy(shares)
        weights = (shares + pull / len(shares)) / (1 + pull)
        return np.stack([0 * weights, 0 * weights, weights])

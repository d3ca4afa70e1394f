"""STCH (Lin et al. 2024, "Smooth Tchebycheff scalarization")."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from domainbed.algorithms import REGISTRY
from domainbed.algorithms.facts import Facts
from domainbed.algorithms.loss_weights import LossWeightsMethod
from domainbed.algorithms.update_count import UpdateCount
from domainbed.hparams import Hparam, choice, const

_EPS = 1e-20  # of the authors' code: no loss is 0 under the logarithm


def smooth_maximum(values: Tensor, mu: float) -> Tensor:
    """mu log sum_k exp(v_k / mu), 0-d: between the greatest of the values (K,) and that plus mu log K."""
    return mu * torch.logsumexp(values / mu, dim=0)


@REGISTRY.register()
class STCH(UpdateCount, LossWeightsMethod):
    """Smooth Tchebycheff scalarization (Lin et al. 2024): a smooth maximum of the environments' losses.

    The default `stch_form` "ratio" is that of the authors' multi-task code. For `stch_warmup` updates the
    number to descend is sum_k log L_k, and the mean losses of the last `stch_nadir_updates` of them are n_k.
    From then on it is K mu log sum_k (L_k / n_k)^(1/mu): for small mu the environment that improved least
    has all the weight; with mu = 1 it is K log sum_k L_k / n_k. In both phases sum_k w_k L_k = K, and the
    scale of an environment's loss does not matter. A run that is shorter than the warm-up never leaves it.

    `stch_form` "plain" is the paper's equation with equal preferences 1/K and the ideal point 0:
    mu log sum_k exp(L_k / (K mu)), without warm-up.
    """

    FACTS = Facts(
        year=2024,
        paper=(
            "Lin et al., Smooth Tchebycheff scalarization for multi-objective optimization, ICML, arXiv "
            "2402.19078"
        ),
        idea="Descends a smooth maximum of the environments' losses",
        one_environment="ERM",
        departures="The warm-up is counted in updates (the authors' code: epochs).",
    )

    DISTRIBUTED = True
    HPARAMS = {
        "stch_mu": Hparam(1.0, choice(0.1, 0.3, 1.0), "mu, smoothing: small for the maximum", above=0),
        "stch_warmup": Hparam(
            500,
            const(500),
            "updates that descend the sum of log losses",
            at_least=1,
            counts_updates=True,
        ),
        "stch_nadir_updates": Hparam(
            100,
            const(100),
            "last updates of the warm-up, whose mean losses are the unit",
            at_least=1,
            counts_updates=True,
        ),
        "stch_form": Hparam(
            "ratio",
            const("ratio"),
            "what the maximum is of: ratio (of losses to those after the warm-up) or plain (losses)",
            choices=("ratio", "plain"),
        ),
    }

    loss_sum: Tensor

    def __init__(
        self, input_shape: tuple[int, ...], num_classes: int, num_domains: int, hparams: dict[str, Any]
    ) -> None:
        super().__init__(input_shape, num_classes, num_domains, hparams)
        # Of the last updates of the warm-up.
        self.register_buffer("loss_sum", torch.zeros(num_domains))

    @property
    def nadir_updates(self) -> int:
        """Number of updates whose mean losses are n."""
        return min(int(self.hparams["stch_nadir_updates"]), int(self.hparams["stch_warmup"]))

    def scalarize(self, losses: Tensor) -> Tensor:
        k, mu = len(losses), float(self.hparams["stch_mu"])
        if self.hparams["stch_form"] == "plain":
            return smooth_maximum(losses / k, mu)
        warmup: int = self.hparams["stch_warmup"]
        if self.updates < warmup:
            return (losses + _EPS).log().sum()
        nadir = self.loss_sum / self.nadir_updates
        return k * smooth_maximum((losses / nadir + _EPS).log(), mu)

    def finish(self, minibatches: object, losses: Tensor) -> None:
        warmup: int = self.hparams["stch_warmup"]
        if warmup - self.nadir_updates <= self.updates < warmup:
            self.loss_sum += losses
        self.count_update()

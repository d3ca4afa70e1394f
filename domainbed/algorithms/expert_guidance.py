"""Guidance by experts of single environments (LFME), and by the labels themselves (ERM+)."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from domainbed import networks
from domainbed.algorithms import REGISTRY
from domainbed.algorithms.base import Metrics, Minibatch, concatenate, scalar
from domainbed.algorithms.erm import ERM
from domainbed.algorithms.facts import Facts
from domainbed.algorithms.optimizers import descend
from domainbed.hparams import Hparam, log10_uniform


@REGISTRY.register()
class LFME(ERM):
    """LFME, learning from multiple experts (Chen et al. 2024, NeurIPS).

    Each source environment trains an expert of its own, a network of the same architecture with the same
    initial weights' source. The network that predicts is trained on all environments: its loss is the risk
    plus alpha times the mean squared difference, over samples and classes, of its logits and the
    probabilities that the expert of a sample's environment gives it. In an update the experts come first;
    their probabilities are those before their own step.

    The network that predicts has ERM's initial weights.

    Attributes:
        experts: one network for each source environment.
        expert_optimizers: one optimizer for each expert.
    """

    FACTS = Facts(
        year=2024,
        paper=(
            "Chen et al., LFME: A simple framework for learning from multiple experts in domain "
            "generalization, NeurIPS, arXiv 2410.17020"
        ),
        idea="An expert of each environment guides the logits of the network that predicts",
        time="2",
        memory="4 * K",
        cost="K more networks with their optimizers.",
        one_environment="guided by one expert of the same environment",
        departures=(
            "The network that predicts has ERM's initial weights (the authors' code draws the experts' "
            "first). Environments may differ in size."
        ),
    )

    UPDATES_ONLY = ("experts",)
    HPARAMS = {
        "lfme_reg": Hparam(1.0, log10_uniform(-2, 1), "weight alpha of the experts' guidance", at_least=0)
    }

    def __init__(
        self, input_shape: tuple[int, ...], num_classes: int, num_domains: int, hparams: dict[str, Any]
    ) -> None:
        super().__init__(input_shape, num_classes, num_domains, hparams)
        self.experts = nn.ModuleList(
            networks.WholeFish(input_shape, num_classes, hparams) for _ in range(num_domains)
        )
        self.expert_optimizers = [
            self.optimizer_over(expert.parameters(), lr=hparams["lr"], weight_decay=hparams["weight_decay"])
            for expert in self.experts
        ]

    def update(self, minibatches: Sequence[Minibatch], unlabeled: Sequence[Tensor] | None = None) -> Metrics:
        guidance = torch.cat([self._train_expert(k, *batch) for k, batch in enumerate(minibatches)])
        x, y = concatenate(minibatches)
        logits = self.predict(x)
        risk = F.cross_entropy(logits, y)
        distance = F.mse_loss(logits, guidance)
        loss = risk + self.hparams["lfme_reg"] * distance
        self.step(loss)
        return {"loss": scalar(loss), "nll": scalar(risk), "guidance": scalar(distance)}

    def _train_expert(self, k: int, x: Tensor, y: Tensor) -> Tensor:
        """Train the expert of environment k, and return its probabilities (B, C) before that step."""
        logits: Tensor = self.experts[k](x)
        descend(F.cross_entropy(logits, y), self.expert_optimizers[k])
        return logits.detach().softmax(1)


@REGISTRY.register()
class ERMPlus(ERM):
    """ERM+ (Chen et al. 2024): the risk plus the squared distance of logits and labels.

    The loss is the cross-entropy plus alpha times the mean squared difference, over samples and classes, of
    the logits and the one-hot labels. It is LFME with experts that are always right. Cost: an ERM step.
    """

    FACTS = Facts(
        year=2024,
        paper=(
            "Chen et al., LFME: A simple framework for learning from multiple experts in domain "
            "generalization, NeurIPS, arXiv 2410.17020"
        ),
        idea=(
            "ERM with a penalty on the distance of the logits to the one-hot labels: LFME with perfect "
            "experts"
        ),
    )

    HPARAMS = {
        "ermplus_reg": Hparam(1.0, log10_uniform(-2, 1), "weight alpha of the squared distance", at_least=0)
    }

    def update(self, minibatches: Sequence[Minibatch], unlabeled: Sequence[Tensor] | None = None) -> Metrics:
        x, y = concatenate(minibatches)
        logits = self.predict(x)
        risk = F.cross_entropy(logits, y)
        distance = F.mse_loss(logits, F.one_hot(y, logits.shape[1]).to(logits.dtype))
        loss = risk + self.hparams["ermplus_reg"] * distance
        self.step(loss)
        return {"loss": scalar(loss), "nll": scalar(risk), "distance": scalar(distance)}

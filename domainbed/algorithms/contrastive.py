"""Contrastive adversarial domain bottlenecks: pairs of samples tell how much features say of environments."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, ClassVar

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from domainbed import networks
from domainbed.algorithms import REGISTRY
from domainbed.algorithms.base import (
    Algorithm,
    DeviceScalar,
    Minibatch,
    concatenate,
    descend,
    environment_labels,
    scalar,
)
from domainbed.algorithms.optimizers import adam
from domainbed.algorithms.supervised_contrastive import others, same, similarities
from domainbed.hparams import Hparam, choice, const

PROJECTED = 128
"""Features of the optional projection."""


class AbstractCAD(Algorithm):
    """Base of CAD and CondCAD: ERM with a loss that a bottleneck of domain information has.

    Args:
        is_conditional: compare samples of the same label only.
    """

    base_temperature: ClassVar[float] = 0.07
    """The bottleneck's loss is scaled by the temperature over this."""
    HPARAMS = {
        "lmbda": Hparam(
            0.1, choice(1e-4, 1e-3, 1e-2, 1e-1, 1.0, 1e1, 1e2), "weight of the bottleneck's loss", at_least=0
        ),
        "temperature": Hparam(0.1, choice(0.05, 0.1), "of the similarities", above=0),
        "is_normalized": Hparam(False, const(False), "similarities are cosines"),
        "is_project": Hparam(False, const(False), "a network of two layers before the similarities"),
        "is_flipped": Hparam(
            True, const(True), "raise the share of other environments, else lower that of the own"
        ),
    }

    def __init__(
        self,
        input_shape: tuple[int, ...],
        num_classes: int,
        num_domains: int,
        hparams: dict[str, Any],
        is_conditional: bool = False,
    ) -> None:
        super().__init__(input_shape, num_classes, num_domains, hparams)
        self.is_conditional = is_conditional
        self.featurizer = networks.Featurizer(input_shape, hparams)
        n_features = self.featurizer.n_outputs
        self.classifier = networks.Classifier(n_features, num_classes, hparams["nonlinear_classifier"])
        if hparams["is_project"]:
            self.project = nn.Sequential(
                nn.Linear(n_features, n_features), nn.ReLU(), nn.Linear(n_features, PROJECTED)
            )
        self.optimizer = adam(self.parameters(), lr=hparams["lr"], weight_decay=hparams["weight_decay"])

    def update(
        self, minibatches: Sequence[Minibatch], unlabeled: Sequence[Tensor] | None = None
    ) -> Mapping[str, float | DeviceScalar]:
        x, y = concatenate(minibatches)
        features = self.featurizer(x)
        bn_loss = self.bn_loss(features, y, environment_labels(minibatches))
        clf_loss = F.cross_entropy(self.classifier(features), y)
        total = clf_loss + self.hparams["lmbda"] * bn_loss
        descend(total, self.optimizer)
        return {"clf_loss": scalar(clf_loss), "bn_loss": scalar(bn_loss), "total_loss": scalar(total)}

    def bn_loss(self, z: Tensor, y: Tensor, dom_labels: Tensor) -> Tensor:
        """The bottleneck's loss (0-d): the mean over samples that have someone to be compared with, else 0.

        A sample's term is minus the log of the share that samples of other environments have in the sum of
        exp(similarity) over others; or, not flipped, plus the log of the share of its own environment.

        Args:
            z: features (B, d).
            y: labels (B,), int64.
            dom_labels: environments (B,), int64.
        """
        temperature = self.hparams["temperature"]
        z = self.project(z) if self.hparams["is_project"] else z
        logits = similarities(z, temperature, self.hparams["is_normalized"])
        other, own = others(y), same(dom_labels)
        partner = same(y) & other
        # A sample's similarity to itself counts as 0; unconditionally, it is in its own environment.
        logits = logits.masked_fill(~other, 0.0)
        compared = partner if self.is_conditional else other
        chosen = ~own if self.hparams["is_flipped"] else own
        chosen = chosen & partner if self.is_conditional else chosen
        kept = partner.any(dim=1) & chosen.any(dim=1)
        log_share = masked_logsumexp(logits, chosen) - masked_logsumexp(logits, compared)
        terms = temperature / self.base_temperature * log_share * kept
        mean: Tensor = terms.sum() / kept.sum().clamp_min(1)
        return -mean if self.hparams["is_flipped"] else mean

    def predict(self, x: Tensor) -> Tensor:
        logits: Tensor = self.classifier(self.featurizer(x))
        return logits


def masked_logsumexp(values: Tensor, mask: Tensor) -> Tensor:
    """Log of the sum of exp over each row's entries in `mask`; both (B, B).

    A row with none has a finite value of no meaning, so that it may be multiplied by 0.
    """
    empty = ~mask.any(dim=1, keepdim=True)
    return values.masked_fill(~(mask | empty), -torch.inf).logsumexp(dim=1)


@REGISTRY.register()
class CAD(AbstractCAD):
    """Contrastive adversarial domain bottleneck (Ruan et al. 2021, arXiv 2201.00057).

    Features of a sample shall be as near to those of other environments as to those of its own. Needs,
    beyond an ERM step, time and memory for the B x B similarities.
    """


@REGISTRY.register()
class CondCAD(AbstractCAD):
    """Conditional contrastive adversarial domain bottleneck (Ruan et al. 2021, arXiv 2201.00057).

    CAD among samples of the same label. Time and memory are CAD's.
    """

    def __init__(
        self, input_shape: tuple[int, ...], num_classes: int, num_domains: int, hparams: dict[str, Any]
    ) -> None:
        super().__init__(input_shape, num_classes, num_domains, hparams, is_conditional=True)

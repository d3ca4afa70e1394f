"""Contrastive adversarial domain bottlenecks: losses on the domain information of features."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, ClassVar

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from domainbed import networks
from domainbed.algorithms import REGISTRY
from domainbed.algorithms.base import Algorithm, Metrics, Minibatch, concatenate, scalar
from domainbed.algorithms.environments import environment_labels
from domainbed.algorithms.facts import Facts
from domainbed.algorithms.optimizers import descend
from domainbed.algorithms.supervised_contrastive import different_samples, same, similarities
from domainbed.hparams import Hparam, choice, const

PROJECTION_WIDTH = 128
"""Number of outputs of the optional projection."""


class AbstractCAD(Algorithm):
    """Base of CAD and CondCAD: the risk plus a bottleneck loss on the domain information of the features.

    Args:
        is_conditional: whether samples are only compared with samples of the same label.
    """

    base_temperature: ClassVar[float] = 0.07
    """The bottleneck loss is multiplied by the temperature and divided by this."""

    HPARAMS = {
        "lmbda": Hparam(
            0.1, choice(1e-4, 1e-3, 1e-2, 1e-1, 1.0, 1e1, 1e2), "weight of the bottleneck loss", at_least=0
        ),
        "temperature": Hparam(0.1, choice(0.05, 0.1), "divisor of the similarities", above=0),
        "is_normalized": Hparam(False, const(False), "use cosine similarities"),
        "is_project": Hparam(False, const(False), "apply a two-layer projection before the similarities"),
        "is_flipped": Hparam(
            True,
            const(True),
            "raise the share of other environments; if false, lower that of the sample's own",
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
        networks.start_from_text(self.classifier, self.featurizer)
        if hparams["is_project"]:
            self.project = nn.Sequential(
                nn.Linear(n_features, n_features), nn.ReLU(), nn.Linear(n_features, PROJECTION_WIDTH)
            )
        self.optimizer = self.optimizer_over(
            self.parameters(), lr=hparams["lr"], weight_decay=hparams["weight_decay"]
        )

    def update(self, minibatches: Sequence[Minibatch], unlabeled: Sequence[Tensor] | None = None) -> Metrics:
        x, y = concatenate(minibatches)
        features = self.featurizer(x)
        bn_loss = self.bn_loss(features, y, environment_labels(minibatches))
        clf_loss = F.cross_entropy(self.classifier(features), y)
        total = clf_loss + self.hparams["lmbda"] * bn_loss
        descend(total, self.optimizer)
        return {"clf_loss": scalar(clf_loss), "bn_loss": scalar(bn_loss), "total_loss": scalar(total)}

    def bn_loss(self, z: Tensor, y: Tensor, dom_labels: Tensor) -> Tensor:
        """Bottleneck loss (0-d): the mean over the samples that have a partner, or 0 if none has.

        With `is_flipped`, a sample's term is minus the log of the share of other environments in the sum of
        exp(similarity) over the other samples. Otherwise it is plus the log of the share of its own
        environment.

        Args:
            z: features (B, d).
            y: labels (B,), int64.
            dom_labels: environments (B,), int64.
        """
        temperature = self.hparams["temperature"]
        z = self.project(z) if self.hparams["is_project"] else z
        logits = similarities(z, temperature, self.hparams["is_normalized"])
        others, own = different_samples(y), same(dom_labels)
        partners = same(y) & others
        # The similarity of a sample to itself counts as 0. Unless conditional, it is part of `own`.
        logits = logits.masked_fill(~others, 0.0)
        compared = partners if self.is_conditional else others
        chosen = ~own if self.hparams["is_flipped"] else own
        chosen = chosen & partners if self.is_conditional else chosen
        counted = partners.any(dim=1) & chosen.any(dim=1)
        log_share = masked_logsumexp(logits, chosen) - masked_logsumexp(logits, compared)
        terms = temperature / self.base_temperature * log_share * counted
        mean: Tensor = terms.sum() / counted.sum().clamp_min(1)
        return -mean if self.hparams["is_flipped"] else mean

    def predict(self, x: Tensor) -> Tensor:
        logits: Tensor = self.classifier(self.featurizer(x))
        return logits


def masked_logsumexp(values: Tensor, mask: Tensor) -> Tensor:
    """Log of the sum of exp over the entries of each row in `mask`, (B,), for values and mask (B, B).

    For rows without such entries the result is arbitrary but finite, so that it can be multiplied by 0.
    """
    empty = ~mask.any(dim=1, keepdim=True)
    return values.masked_fill(~(mask | empty), -torch.inf).logsumexp(dim=1)


@REGISTRY.register()
class CAD(AbstractCAD):
    """Contrastive adversarial domain bottleneck (Ruan et al. 2022).

    Makes the features of a sample as similar to those of other environments as to those of its own.
    """

    FACTS = Facts(
        year=2022,
        paper="Ruan, Dubois and Maddison, Optimal representations for covariate shift, arXiv 2201.00057",
        idea="Features are as similar to those of other environments as to those of their own",
        cost="Similarities (B, B) of all samples.",
        one_environment="ERM",
        departures=(
            "`is_project` works (upstream's fails). Infinite terms are left out, with a finite gradient."
        ),
    )


@REGISTRY.register()
class CondCAD(AbstractCAD):
    """Conditional contrastive adversarial domain bottleneck (Ruan et al. 2022).

    CAD among samples of the same label.
    """

    FACTS = Facts(
        year=2022,
        paper="Ruan, Dubois and Maddison, Optimal representations for covariate shift, arXiv 2201.00057",
        idea="CAD among samples of the same label",
        cost="As CAD.",
        one_environment="ERM",
        departures="As CAD.",
    )

    def __init__(
        self, input_shape: tuple[int, ...], num_classes: int, num_domains: int, hparams: dict[str, Any]
    ) -> None:
        super().__init__(input_shape, num_classes, num_domains, hparams, is_conditional=True)

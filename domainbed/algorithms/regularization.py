"""Methods that keep a network from relying on a few dominant features."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from domainbed.algorithms import REGISTRY
from domainbed.algorithms.base import Metrics, Minibatch, concatenate, scalar
from domainbed.algorithms.erm import ERM
from domainbed.algorithms.facts import Facts
from domainbed.algorithms.precision import at_least_float32
from domainbed.hparams import Hparam, log10_uniform, uniform


@REGISTRY.register()
class RSC(ERM):
    """Representation self-challenging (Huang et al. 2020, algorithm 1).

    Drops, of each sample's features, the fraction `rsc_f_drop_factor` with the largest gradients of the logit
    of its label. This is done in the fraction `rsc_b_drop_factor` of samples whose confidence falls most by
    it.
    """

    FACTS = Facts(
        year=2020,
        paper="Huang et al., Self-challenging improves cross-domain generalization, arXiv 2007.02454",
        idea="Drops the features on which a sample's label depends most",
        cost="Two more passes of the classifier.",
    )

    HPARAMS = {
        "rsc_f_drop_factor": Hparam(
            1 / 3, uniform(0, 0.5), "fraction of a sample's features to drop", at_least=0, at_most=1
        ),
        "rsc_b_drop_factor": Hparam(
            1 / 3, uniform(0, 0.5), "fraction of samples to drop them in", at_least=0, at_most=1
        ),
    }

    def __init__(
        self, input_shape: tuple[int, ...], num_classes: int, num_domains: int, hparams: dict[str, Any]
    ) -> None:
        super().__init__(input_shape, num_classes, num_domains, hparams)
        self.drop_f = (1 - hparams["rsc_f_drop_factor"]) * 100
        self.drop_b = (1 - hparams["rsc_b_drop_factor"]) * 100
        self.num_classes = num_classes

    def update(self, minibatches: Sequence[Minibatch], unlabeled: Sequence[Tensor] | None = None) -> Metrics:
        x, y = concatenate(minibatches)
        features = self.featurizer(x)
        mask = self._mask(features.detach(), y)
        loss = F.cross_entropy(self.classifier(features * mask), y)
        self.step(loss)
        return {"loss": scalar(loss)}

    def _mask(self, features: Tensor, y: Tensor) -> Tensor:
        """Mask (B, n_outputs), bool, of the features to train the classifier on.

        Args:
            features: (B, n_outputs), detached.
            y: labels (B,).
        """
        # Quantiles need full precision, also under autocast.
        features = at_least_float32(features).requires_grad_()
        logits = self.classifier(features)
        (gradient,) = torch.autograd.grad(logits.gather(1, y[:, None]).sum(), features)
        small_gradient = gradient < torch.quantile(gradient, self.drop_f / 100, dim=1, keepdim=True)
        with torch.no_grad():
            challenged = self.classifier(features * small_gradient)
            change = _confidence(logits, y) - _confidence(challenged, y)
        small_change = change < torch.quantile(change, self.drop_b / 100)
        return small_gradient | small_change[:, None]


def _confidence(logits: Tensor, y: Tensor) -> Tensor:
    """Probability (B,) of the labels (B,) according to the logits (B, num_classes)."""
    return at_least_float32(logits).softmax(1).gather(1, y[:, None])[:, 0]


@REGISTRY.register()
class SD(ERM):
    """Spectral decoupling (Pezeshki et al. 2020, equation 25): a penalty on the logits."""

    FACTS = Facts(
        year=2020,
        paper=(
            "Pezeshki et al., Gradient starvation: A learning proclivity in neural networks, arXiv 2011.09468"
        ),
        idea="A penalty on the squared logits",
    )

    HPARAMS = {"sd_reg": Hparam(0.1, log10_uniform(-5, -1), "weight of the mean squared logit", at_least=0)}

    def update(self, minibatches: Sequence[Minibatch], unlabeled: Sequence[Tensor] | None = None) -> Metrics:
        x, y = concatenate(minibatches)
        logits = self.predict(x)
        loss = F.cross_entropy(logits, y)
        penalty = F.mse_loss(logits, torch.zeros_like(logits))
        self.step(loss + self.hparams["sd_reg"] * penalty)
        return {"loss": scalar(loss), "penalty": scalar(penalty)}

"""Methods that keep a network from leaning on a few strong features."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from domainbed.algorithms import REGISTRY
from domainbed.algorithms.base import DeviceScalar, Minibatch, concatenate, scalar
from domainbed.algorithms.erm import ERM
from domainbed.algorithms.precision import at_least_float32
from domainbed.hparams import Hparam, log10_uniform, uniform


@REGISTRY.register()
class RSC(ERM):
    """Representation self-challenging (Huang et al. 2020, arXiv 2007.02454).

    Trains without the features that a sample's class leans on most (`rsc_f_drop_factor` of them), in those
    samples that lose most by it (`rsc_b_drop_factor` of them). Needs two more passes of the classifier than
    ERM; quantiles, as NumPy interpolates them, are taken on the device.
    """

    HPARAMS = {
        "rsc_f_drop_factor": Hparam(
            1 / 3, uniform(0, 0.5), "share of a sample's features to drop", at_least=0
        ),
        "rsc_b_drop_factor": Hparam(1 / 3, uniform(0, 0.5), "share of samples to drop them in", at_least=0),
    }

    def __init__(
        self, input_shape: tuple[int, ...], num_classes: int, num_domains: int, hparams: dict[str, Any]
    ) -> None:
        super().__init__(input_shape, num_classes, num_domains, hparams)
        self.drop_f = (1 - hparams["rsc_f_drop_factor"]) * 100
        self.drop_b = (1 - hparams["rsc_b_drop_factor"]) * 100
        self.num_classes = num_classes

    def update(
        self, minibatches: Sequence[Minibatch], unlabeled: Sequence[Tensor] | None = None
    ) -> Mapping[str, float | DeviceScalar]:
        x, y = concatenate(minibatches)
        features = self.featurizer(x)
        kept = self._kept(features.detach(), y)
        loss = F.cross_entropy(self.classifier(features * kept), y)
        self.step(loss)
        return {"loss": scalar(loss)}

    def _kept(self, features: Tensor, y: Tensor) -> Tensor:
        """Which features (B, n_outputs) the classifier is to be trained on, bool.

        Args:
            features: (B, n_outputs), detached.
            y: labels (B,).
        """
        # In full precision where they came out of a layer in bfloat16: quantiles need it.
        features = at_least_float32(features).requires_grad_()
        logits = self.classifier(features)
        (gradient,) = torch.autograd.grad(logits.gather(1, y[:, None]).sum(), features)
        weak = gradient < torch.quantile(gradient, self.drop_f / 100, dim=1, keepdim=True)
        with torch.no_grad():
            challenged = self.classifier(features * weak)
            change = _confidence(logits, y) - _confidence(challenged, y)
        little_changed = change < torch.quantile(change, self.drop_b / 100)
        return weak | little_changed[:, None]


def _confidence(logits: Tensor, y: Tensor) -> Tensor:
    """Probability (B,) that the logits (B, num_classes) give to the labels (B,)."""
    return at_least_float32(logits).softmax(1).gather(1, y[:, None])[:, 0]


@REGISTRY.register()
class SD(ERM):
    """Spectral decoupling (Pezeshki et al. 2020, arXiv 2011.09468, equation 25): logits are kept small.

    An update costs what ERM's does.
    """

    HPARAMS = {"sd_reg": Hparam(0.1, log10_uniform(-5, -1), "weight of the mean squared logit", at_least=0)}

    def update(
        self, minibatches: Sequence[Minibatch], unlabeled: Sequence[Tensor] | None = None
    ) -> Mapping[str, float | DeviceScalar]:
        x, y = concatenate(minibatches)
        logits = self.predict(x)
        loss = F.cross_entropy(logits, y)
        penalty = F.mse_loss(logits, torch.zeros_like(logits))
        self.step(loss + self.hparams["sd_reg"] * penalty)
        return {"loss": scalar(loss), "penalty": scalar(penalty)}

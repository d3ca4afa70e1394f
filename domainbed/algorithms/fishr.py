"""Fishr: environments shall agree in the variance of their gradients."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from domainbed.algorithms import REGISTRY
from domainbed.algorithms.annealed import Annealed
from domainbed.algorithms.base import DeviceScalar, Minibatch, concatenate, scalar
from domainbed.algorithms.moving_average import MovingAverage
from domainbed.algorithms.precision import full_precision
from domainbed.algorithms.tensor_dicts import l2_between_dicts
from domainbed.errors import UsageError
from domainbed.gradients.gradient_variance import LinearPass, forward_with_gradients, linear_layers
from domainbed.hparams import Hparam, log10_uniform, uniform, uniform_int


@REGISTRY.register()
class Fishr(Annealed):
    """Fishr (Rame et al., ICML 2022, arXiv 2109.02934).

    Joint risk plus lambda times the mean squared distance of the environments' gradient variances from
    their mean. The variance is that of the classifier's per-sample gradients, as a moving average over
    updates for each environment, which goes on from the first update; the penalty counts from
    `penalty_anneal_iters` updates on, when the optimizer starts anew. In closed form: two small matrix
    products for each of the classifier's linear layers and each environment, and K averages of the
    classifier's size. The classifier works in full precision under autocast.
    """

    HPARAMS = {
        "lambda": Hparam(1000.0, log10_uniform(1, 4), "weight of the penalty", at_least=0),
        "penalty_anneal_iters": Hparam(
            1500, uniform_int(0, 5000), "updates before the penalty counts", at_least=0
        ),
        "ema": Hparam(0.95, uniform(0.90, 0.99), "share of the past in the moving average", at_least=0),
    }

    def __init__(
        self, input_shape: tuple[int, ...], num_classes: int, num_domains: int, hparams: dict[str, Any]
    ) -> None:
        if hparams["ema"] >= 1:
            raise UsageError(f"Fishr needs ema below 1, not {hparams['ema']} (the past would be all)")
        super().__init__(input_shape, num_classes, num_domains, hparams)
        linear_layers(self.classifier)  # a head that the closed form doesn't fit is refused here
        self.num_domains = num_domains
        self.ema_per_domain = [MovingAverage(hparams["ema"]) for _ in range(num_domains)]

    def update(
        self, minibatches: Sequence[Minibatch], unlabeled: Sequence[Tensor] | None = None
    ) -> Mapping[str, float | DeviceScalar]:
        if len(minibatches) != self.num_domains:
            raise UsageError(
                f"Fishr keeps an average for each of its {self.num_domains} source environments: it needs "
                f"as many minibatches, not {len(minibatches)}"
            )
        anneal = self.hparams["penalty_anneal_iters"]
        active = self.updates >= anneal
        x, y = concatenate(minibatches)
        features = self.featurizer(x)
        with full_precision(features):
            features = features.to(next(self.classifier.parameters()).dtype)
            logits, passes = forward_with_gradients(self.classifier, features, y, differentiable=active)
            nll = F.cross_entropy(logits, y)
            penalty = self._penalty(passes, [len(y) for _, y in minibatches])
            loss = nll + (self.hparams["lambda"] if active else 0.0) * penalty
        self.annealed_step(loss, anneal)
        return {"loss": scalar(loss), "nll": scalar(nll), "penalty": scalar(penalty)}

    def _penalty(self, passes: Mapping[str, LinearPass], sizes: Sequence[int]) -> Tensor:
        """Mean squared distance of the averaged variances from their mean over environments; 0-d."""
        variances: list[dict[str, Tensor]] = [{} for _ in sizes]
        for name, layer in passes.items():
            for of_environment, part in zip(variances, layer.split(sizes), strict=True):
                of_environment |= {f"{name}.{key}".lstrip("."): v for key, v in part.variances().items()}
        averaged = [ema.update(own) for ema, own in zip(self.ema_per_domain, variances, strict=True)]
        # The mean's own derivative is the sum of deviations from it, 0.
        mean = {name: torch.stack([own[name].detach() for own in averaged]).mean(0) for name in averaged[0]}
        return torch.stack([l2_between_dicts(own, mean) for own in averaged]).mean()

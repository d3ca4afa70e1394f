"""Transfer: features on which no nearby classifier separates the environments' risks."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, optim

from domainbed import networks
from domainbed.algorithms import REGISTRY
from domainbed.algorithms.base import Algorithm, DeviceScalar, Minibatch, concatenate, descend, scalar
from domainbed.algorithms.optimizers import adam
from domainbed.algorithms.projection import proj
from domainbed.hparams import Hparam, Kind, choice, const, log10_uniform, uniform


@REGISTRY.register()
class Transfer(Algorithm):
    """Transferability (Zhang et al. 2021, arXiv 2106.03632, algorithm 1).

    One step down the risk and one down the gap, i.e. the largest minus the smallest risk of an environment,
    of an adversary; then the adversary starts from the classifier and takes `d_steps_per_g` steps up the gap,
    within `delta` of the classifier. Needs d_steps_per_g + 1 forward passes and one backward pass of the
    featurizer beyond ERM's, and a copy of the classifier. The gap of one environment is 0.

    With `gda`, which all random hyper-parameters have, featurizer and classifier are trained by SGD. Upstream
    gives that SGD the adversary's parameters instead, and trains nothing: the switch `upstream_gda`.
    """

    HPARAMS = {
        "t_lambda": Hparam(1.0, log10_uniform(-2, 1), "weight of the gap", at_least=0),
        "delta": Hparam(2.0, uniform(0.1, 3.0), "radius of the adversary's ball", at_least=0),
        "d_steps_per_g": Hparam(10, choice(1, 2, 5), "steps of the adversary an update", at_least=1),
        "weight_decay_d": Hparam(
            0.0, log10_uniform(-6, -2), "no effect (as in upstream)", kind=Kind.INCIDENTAL
        ),
        "gda": Hparam(False, const(True), "SGD in place of Adam"),
        "beta1": Hparam(0.5, choice(0.0, 0.5), "no effect (as in upstream)", kind=Kind.INCIDENTAL),
        "lr_d": Hparam(1e-3, log10_uniform(-4.5, -2.5), "learning rate of the adversary", above=0),
    }
    SWITCHES = {
        "upstream_gda": Hparam(
            False, const(False), "gda leaves featurizer and classifier untrained (upstream)"
        )
    }

    update_count: Tensor

    def __init__(
        self, input_shape: tuple[int, ...], num_classes: int, num_domains: int, hparams: dict[str, Any]
    ) -> None:
        super().__init__(input_shape, num_classes, num_domains, hparams)
        # Of no effect; in upstream's checkpoints.
        self.register_buffer("update_count", torch.tensor([0]))
        self.d_steps_per_g = hparams["d_steps_per_g"]
        self.featurizer = networks.Featurizer(input_shape, hparams)
        width, nonlinear = self.featurizer.n_outputs, hparams["nonlinear_classifier"]
        self.classifier = networks.Classifier(width, num_classes, nonlinear)
        self.adv_classifier = networks.Classifier(width, num_classes, nonlinear)
        self.adv_classifier.load_state_dict(self.classifier.state_dict())
        self.optimizer = self._new_optimizer()
        self.adv_opt = optim.SGD(self.adv_classifier.parameters(), lr=hparams["lr_d"])

    def _new_optimizer(self) -> optim.Optimizer:
        lr = self.hparams["lr"]
        if self.hparams["gda"] and self.switch("upstream_gda"):
            return optim.SGD(self.adv_classifier.parameters(), lr=lr)
        parameters = [*self.featurizer.parameters(), *self.classifier.parameters()]
        if self.hparams["gda"]:
            return optim.SGD(parameters, lr=lr)
        return adam(parameters, lr=lr, weight_decay=self.hparams["weight_decay"])

    def update(
        self, minibatches: Sequence[Minibatch], unlabeled: Sequence[Tensor] | None = None
    ) -> Mapping[str, float | DeviceScalar]:
        weight = self.hparams["t_lambda"]
        x, y = concatenate(minibatches)
        loss = F.cross_entropy(self.predict(x), y)
        descend(loss, self.optimizer)
        descend(weight * self.loss_gap(minibatches), self.optimizer)

        self.adv_classifier.load_state_dict(self.classifier.state_dict())
        gap = torch.zeros_like(loss)
        for _ in range(self.d_steps_per_g):
            gap = weight * self.loss_gap(minibatches, features_grad=False)
            descend(-gap, self.adv_opt)
            proj(self.hparams["delta"], self.adv_classifier, self.classifier)
        return {"loss": scalar(loss), "gap": scalar(gap)}

    def loss_gap(self, minibatches: Sequence[Minibatch], features_grad: bool = True) -> Tensor:
        """Largest minus smallest risk (0-d) of the adversary in an environment.

        Args:
            minibatches: one an environment.
            features_grad: whether the gradient reaches the featurizer.
        """
        losses = []
        for x, y in minibatches:
            with torch.set_grad_enabled(features_grad):
                features = self.featurizer(x)
            losses.append(F.cross_entropy(self.adv_classifier(features), y))
        risks = torch.stack(losses)
        return risks.max(dim=0).values - risks.min(dim=0).values

    def predict(self, x: Tensor) -> Tensor:
        logits: Tensor = self.classifier(self.featurizer(x))
        return logits

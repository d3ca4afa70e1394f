"""ERM, or Deep-All: the mean loss over the minibatches of all source environments."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import torch.nn.functional as F
from torch import Tensor, nn, optim

from domainbed import networks
from domainbed.algorithms import REGISTRY
from domainbed.algorithms.base import Algorithm, DeviceScalar, Minibatch, concatenate, descend, scalar
from domainbed.algorithms.optimizers import adam


@REGISTRY.register()
class ERM(Algorithm):
    """Empirical risk minimisation (Vapnik 1998).

    Forward pass over the concatenated minibatches; environments with larger minibatches weigh more.
    """

    DISTRIBUTED = True

    def __init__(
        self, input_shape: tuple[int, ...], num_classes: int, num_domains: int, hparams: dict[str, Any]
    ) -> None:
        super().__init__(input_shape, num_classes, num_domains, hparams)
        self.featurizer = networks.Featurizer(input_shape, hparams)
        self.classifier = networks.Classifier(
            self.featurizer.n_outputs, num_classes, hparams["nonlinear_classifier"]
        )
        # Upstream's checkpoints hold every parameter under both names.
        self.network = nn.Sequential(self.featurizer, self.classifier)
        self.optimizer = self.new_optimizer()

    def new_optimizer(self, lr: float | None = None) -> optim.Optimizer:
        """Adam over the whole network, with nothing accumulated yet; `lr` in place of the hyper-parameter."""
        return adam(
            self.network.parameters(),
            lr=self.hparams["lr"] if lr is None else lr,
            weight_decay=self.hparams["weight_decay"],
        )

    def update(
        self, minibatches: Sequence[Minibatch], unlabeled: Sequence[Tensor] | None = None
    ) -> Mapping[str, float | DeviceScalar]:
        x, y = concatenate(minibatches)
        loss = self.process_group.weighted_share(F.cross_entropy(self.predict(x), y), len(y))
        self.step(loss)
        return {"loss": scalar(self.process_group.sum(loss))}

    def step(self, loss: Tensor) -> None:
        """One step of the optimizer down the gradient of `loss`, summed over ranks."""
        descend(loss, self.optimizer, process_group=self.process_group)

    def trained_parameters(self) -> list[nn.Parameter]:
        """The network's parameters that are not frozen."""
        return [parameter for parameter in self.network.parameters() if parameter.requires_grad]

    def joint_logits(self, minibatches: Sequence[Minibatch]) -> tuple[Tensor, ...]:
        """Logits (B, num_classes) of each environment, from one forward pass over all of them."""
        logits = self.predict(concatenate(minibatches)[0])
        parts: tuple[Tensor, ...] = logits.split([len(y) for _, y in minibatches])
        return parts

    def predict(self, x: Tensor) -> Tensor:
        logits: Tensor = self.network(x)
        return logits

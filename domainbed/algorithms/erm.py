"""ERM, also called Deep-All: the mean loss over the minibatches of all source environments."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch.nn.functional as F
from torch import Tensor, nn, optim

from domainbed import networks
from domainbed.algorithms import REGISTRY
from domainbed.algorithms.base import Algorithm, Metrics, Minibatch, concatenate, scalar
from domainbed.algorithms.facts import Facts
from domainbed.algorithms.optimizers import descend


@REGISTRY.register()
class ERM(Algorithm):
    """Empirical risk minimisation (Vapnik 1998).

    The loss is the mean over all samples, so environments with larger minibatches have a larger weight.

    Attributes:
        featurizer: maps inputs to features.
        classifier: maps features to logits.
        network: both in sequence.
        optimizer: optimizer over `network`, by default Adam.
    """

    FACTS = Facts(
        year=1998,
        paper="Vapnik, Statistical learning theory, Wiley",
        idea="The mean loss over the minibatches of all source environments; also called Deep-All",
    )

    DISTRIBUTED = True

    def __init__(
        self, input_shape: tuple[int, ...], num_classes: int, num_domains: int, hparams: dict[str, Any]
    ) -> None:
        super().__init__(input_shape, num_classes, num_domains, hparams)
        self.featurizer = networks.Featurizer(input_shape, hparams)
        self.classifier = networks.Classifier(
            self.featurizer.n_outputs, num_classes, hparams["nonlinear_classifier"]
        )
        networks.start_from_text(self.classifier, self.featurizer)
        # Upstream's checkpoints hold every parameter under both names.
        self.network = nn.Sequential(self.featurizer, self.classifier)
        self.optimizer = self.new_optimizer()

    def new_optimizer(self, lr: float | None = None) -> optim.Optimizer:
        """A new optimizer over the whole network, by default Adam. `lr` replaces the hyper-parameter `lr`."""
        return self.optimizer_over(
            self.network.parameters(),
            lr=self.hparams["lr"] if lr is None else lr,
            weight_decay=self.hparams["weight_decay"],
        )

    def update(self, minibatches: Sequence[Minibatch], unlabeled: Sequence[Tensor] | None = None) -> Metrics:
        x, y = concatenate(minibatches)
        loss = self.process_group.weighted_share(F.cross_entropy(self.predict(x), y), len(y))
        self.step(loss)
        return {"loss": scalar(self.process_group.sum(loss))}

    def step(self, loss: Tensor) -> None:
        """Take one step of the optimizer along the gradient of `loss`, summed over `process_group`."""
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

"""Marginal transfer learning: the classifier also sees an embedding of the sample's environment."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from domainbed import networks
from domainbed.algorithms import REGISTRY
from domainbed.algorithms.base import Algorithm, Metrics, Minibatch, scalar
from domainbed.algorithms.facts import Facts
from domainbed.algorithms.optimizers import descend
from domainbed.hparams import Hparam, choice, const


@REGISTRY.register()
class MTL(Algorithm):
    """Marginal transfer learning (Blanchard et al. 2017), with a neural network.

    The classifier's inputs are the features of a sample and an embedding of its environment: the mean of the
    features over the minibatch, averaged over updates. The loss is the sum over environments. As in upstream,
    standard normal noise replaces the embedding unless `mtl_embedding` is set. Then predictions, whose
    environment is unknown, use the mean over the current batch.

    Draws B * n_outputs normal numbers in each forward pass, on the device, unless `mtl_embedding` is set.
    """

    FACTS = Facts(
        year=2017,
        paper="Blanchard et al., Domain generalization by marginal transfer learning, arXiv 1711.07910",
        idea="The classifier also sees an embedding of the sample's environment, the mean of its features",
        cost="A forward pass for each environment.",
        one_environment="ERM with a constant or noise beside the features",
        departures="Noise stands in for the embedding, as upstream; `mtl_embedding` uses the embedding.",
    )

    HPARAMS = {
        "mtl_ema": Hparam(
            0.99, choice(0.5, 0.9, 0.99, 1.0), "weight of the newest mean in the embedding", at_least=0
        )
    }
    SWITCHES = {
        "mtl_embedding": Hparam(
            False, const(False), "use the embedding; if false, noise in its place (as in upstream)"
        )
    }

    embeddings: Tensor

    def __init__(
        self, input_shape: tuple[int, ...], num_classes: int, num_domains: int, hparams: dict[str, Any]
    ) -> None:
        super().__init__(input_shape, num_classes, num_domains, hparams)
        self.featurizer = networks.Featurizer(input_shape, hparams)
        self.classifier = networks.Classifier(
            2 * self.featurizer.n_outputs, num_classes, hparams["nonlinear_classifier"]
        )
        self.optimizer = self.optimizer_over(
            [*self.featurizer.parameters(), *self.classifier.parameters()],
            lr=hparams["lr"],
            weight_decay=hparams["weight_decay"],
        )
        self.register_buffer("embeddings", torch.zeros(num_domains, self.featurizer.n_outputs))
        self.ema = hparams["mtl_ema"]

    def update(self, minibatches: Sequence[Minibatch], unlabeled: Sequence[Tensor] | None = None) -> Metrics:
        losses = [F.cross_entropy(self.predict(x, env), y) for env, (x, y) in enumerate(minibatches)]
        loss = torch.stack(losses).sum()
        descend(loss, self.optimizer)
        return {"loss": scalar(loss)}

    def predict(self, x: Tensor, env: int | None = None) -> Tensor:
        """Logits (B, num_classes) of inputs (B, *input_shape).

        Args:
            x: inputs.
            env: index of the source environment whose embedding to update; None in evaluation.
        """
        features = self.featurizer(x)
        embedding = self._embedding(features, env)
        if not self.switch("mtl_embedding"):
            embedding = torch.randn_like(features)
        logits: Tensor = self.classifier(torch.cat([features, embedding.expand_as(features)], dim=1))
        return logits

    def _embedding(self, features: Tensor, env: int | None) -> Tensor:
        """Mean (n_outputs,) of the features (B, n_outputs), averaged with the embedding of `env`."""
        mean = features.to(self.embeddings.dtype).mean(dim=0)
        if env is not None:
            mean = self.ema * mean + (1 - self.ema) * self.embeddings[env]
            self.embeddings[env] = mean.detach()
        return mean

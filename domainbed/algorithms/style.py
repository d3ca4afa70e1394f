"""SagNet: separation of the content of a sample from its style."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Literal

import torch
import torch.nn.functional as F
from torch import Tensor, nn, optim

from domainbed import networks
from domainbed.algorithms import REGISTRY
from domainbed.algorithms.base import Algorithm, Metrics, Minibatch, concatenate, scalar
from domainbed.algorithms.facts import Facts
from domainbed.algorithms.optimizers import descend
from domainbed.algorithms.precision import at_least_float32
from domainbed.hparams import Hparam, log10_uniform


@REGISTRY.register()
class SagNet(Algorithm):
    """Style-agnostic networks (Nam et al. 2019, algorithm 1).

    The style of a sample is the mean and variance of its features. The classifier `network_c` is trained on
    random styles. A second classifier `network_s` is trained to classify by the style alone, and the
    featurizer to prevent that. An update is three steps, one after the other.

    Draws as `randomize`, three times.
    """

    FACTS = Facts(
        year=2019,
        paper="Nam et al., Reducing domain gap by reducing style bias, arXiv 1910.11645",
        idea="Classifies features of random style, which must not tell the class by their style",
        time="7 / 3",
        cost="Two forward and backward passes of the featurizer, and one more forward pass.",
        departures=(
            "Styles are mean and variance of the feature vector, as upstream; the paper's are those of "
            "feature maps."
        ),
    )

    HPARAMS = {"sag_w_adv": Hparam(0.1, log10_uniform(-2, 1), "weight of the adversarial loss", at_least=0)}

    def __init__(
        self, input_shape: tuple[int, ...], num_classes: int, num_domains: int, hparams: dict[str, Any]
    ) -> None:
        super().__init__(input_shape, num_classes, num_domains, hparams)
        self.network_f = networks.Featurizer(input_shape, hparams)
        self.network_c, self.network_s = (
            networks.Classifier(self.network_f.n_outputs, num_classes, hparams["nonlinear_classifier"])
            for _ in range(2)
        )
        networks.start_from_text(self.network_c, self.network_f)
        self.optimizer_f, self.optimizer_c, self.optimizer_s = map(
            self._optimizer, (self.network_f, self.network_c, self.network_s)
        )
        self.weight_adv = hparams["sag_w_adv"]

    def _optimizer(self, network: nn.Module) -> optim.Optimizer:
        lr, weight_decay = self.hparams["lr"], self.hparams["weight_decay"]
        return self.optimizer_over(network.parameters(), lr, weight_decay)

    def update(self, minibatches: Sequence[Minibatch], unlabeled: Sequence[Tensor] | None = None) -> Metrics:
        x, y = concatenate(minibatches)
        logits = self.network_c(self.randomize(self.network_f(x), "style"))
        loss_c = F.cross_entropy(logits, y)
        descend(loss_c, self.optimizer_f, self.optimizer_c)

        with torch.no_grad():
            features = self.network_f(x)
        logits = self.network_s(self.randomize(features, "content"))
        loss_s = F.cross_entropy(logits, y)
        descend(loss_s, self.optimizer_s)

        logits = self.network_s(self.randomize(self.network_f(x), "content"))
        # Minimal if the style network predicts all classes with equal probability.
        loss_adv = -self.weight_adv * F.log_softmax(logits, dim=1).mean()
        descend(loss_adv, self.optimizer_f)
        return {"loss_c": scalar(loss_c), "loss_s": scalar(loss_s), "loss_adv": scalar(loss_adv)}

    @staticmethod
    def randomize(features: Tensor, what: Literal["style", "content"], eps: float = 1e-5) -> Tensor:
        """Features with a random style, or with the content of another sample.

        A random style interpolates between that of the sample and that of another one. Content of another
        sample is detached.

        In both cases draws from torch's global CPU generator: rand(B, 1), the interpolation weights, then
        randperm(B), the other samples.

        Args:
            features: vectors (B, d) with one style each, or maps (B, C, H, W) with a style for each channel.
            what: what to change.
            eps: added to the variances.

        Returns: features of the same shape, in float32 or better.
        """
        values = at_least_float32(features)
        values = values.flatten(2) if values.dim() > 2 else values
        alpha = torch.rand(len(values), 1).to(values).view(-1, *[1] * (values.dim() - 1))
        other = torch.randperm(len(values)).to(values.device)
        mean, variance = values.mean(-1, keepdim=True), values.var(-1, keepdim=True)
        content = (values - mean) / (variance + eps).sqrt()
        if what == "style":
            mean, variance = (own.lerp(own[other], 1 - alpha) for own in (mean, variance))
        else:
            content = content[other].detach()
        return (content * (variance + eps).sqrt() + mean).view(features.shape)

    def predict(self, x: Tensor) -> Tensor:
        logits: Tensor = self.network_c(self.network_f(x))
        return logits

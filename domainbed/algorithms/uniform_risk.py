"""URM: features with a uniform distribution."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn, optim

from domainbed.algorithms import REGISTRY
from domainbed.algorithms.base import Metrics, Minibatch, concatenate, scalar
from domainbed.algorithms.erm import ERM
from domainbed.algorithms.facts import Facts
from domainbed.algorithms.optimizers import adam, descend
from domainbed.datasets import by_size
from domainbed.errors import UsageError
from domainbed.hparams import Hparam, Kind, choice, const, log10_uniform, uniform

ACTIVATIONS: dict[str, type[nn.Module]] = {"tanh": nn.Tanh, "sigmoid": nn.Sigmoid, "relu": nn.ReLU}
"""Activations of the features. The noise is drawn from (-1, 1) for tanh, from (0, 1) for the others."""

HIDDEN = 100
"""Units of a hidden layer of the discriminator."""


@REGISTRY.register()
class URM(ERM):
    """Uniform risk minimisation (Krishnamachari et al. 2024, TMLR, OpenReview PgLbS5yp8n).

    An activation bounds the features. A discriminator is trained to distinguish them from uniform noise of
    their shape, and the featurizer to prevent that.

    Draws the noise from the global generator of the features' device and, with label smoothing, targets for
    the noise and for the features.

    Raises: UsageError for a featurizer without the module `activation`.
    """

    FACTS = Facts(
        year=2024,
        paper=(
            "Krishnamachari et al., Uniformly distributed feature representations for fair and robust "
            "learning, TMLR, OpenReview PgLbS5yp8n"
        ),
        idea="A discriminator must not distinguish the features from uniform noise",
        cost="Three passes of a small network.",
        departures=(
            "Any featurizer with an `activation` (upstream: four). Generator output `identity` is refused "
            "at the start."
        ),
    )

    HPARAMS = {
        "urm": Hparam(
            "adversarial", const("adversarial"), "no effect (as in upstream)", kind=Kind.INCIDENTAL
        ),
        "urm_adv_lambda": Hparam(0.1, uniform(0, 0.2), "weight of the adversarial losses", at_least=0),
        "urm_discriminator_label_smoothing": Hparam(
            0,
            uniform(0, 0),  # upstream's, which is 0 always
            "width of the intervals of targets",
            type=float,
            at_least=0,
            kind=Kind.DESIGN,
        ),
        "urm_discriminator_optimizer": Hparam(
            "adam", const("adam"), "the discriminator's optimizer", choices=("adam", "sgd")
        ),
        "urm_discriminator_hidden_layers": Hparam(
            1, choice(1, 2, 3), "number of hidden layers after the first", at_least=0
        ),
        "urm_generator_output": Hparam(
            "tanh", choice("tanh", "relu"), "activation of the features", choices=tuple(ACTIVATIONS)
        ),
        "urm_discriminator_lr": by_size(
            small=Hparam(1e-3, log10_uniform(-5.5, -3.5), "discriminator's learning rate", above=0),
            large=Hparam(5e-5, log10_uniform(-6, -4.5), "discriminator's learning rate", above=0),
        ),
    }

    def __init__(
        self, input_shape: tuple[int, ...], num_classes: int, num_domains: int, hparams: dict[str, Any]
    ) -> None:
        super().__init__(input_shape, num_classes, num_domains, hparams)
        if not isinstance(getattr(self.featurizer, "activation", None), nn.Module):
            raise UsageError(
                f"URM replaces the featurizer's module `activation`, which "
                f"{type(self.featurizer).__name__} does not have; choose another one with the "
                'hyper-parameter "featurizer"'
            )
        self.discriminator = discriminator(
            self.featurizer.n_outputs, hparams["urm_discriminator_hidden_layers"]
        )
        self.discriminator_opt = self._discriminator_optimizer(hparams["urm_discriminator_optimizer"])
        activation = hparams["urm_generator_output"]
        self.featurizer.activation = ACTIVATIONS[activation]()
        self.lowest = -1.0 if activation == "tanh" else 0.0

    def _discriminator_optimizer(self, name: str) -> optim.Optimizer:
        parameters = self.discriminator.parameters()
        lr, weight_decay = self.hparams["urm_discriminator_lr"], self.hparams["weight_decay"]
        if name == "sgd":
            return optim.SGD(parameters, lr=lr, momentum=0.9, weight_decay=weight_decay)
        return adam(parameters, lr=lr, weight_decay=weight_decay)

    def update(self, minibatches: Sequence[Minibatch], unlabeled: Sequence[Tensor] | None = None) -> Metrics:
        weight = self.hparams["urm_adv_lambda"]
        x, y = concatenate(minibatches)
        features = self.featurizer(x)
        risk = F.cross_entropy(self.classifier(features), y)
        noise_logits = self.discriminator(features)
        adversarial = binary_loss(noise_logits, torch.ones_like(noise_logits))
        loss = risk + weight * adversarial
        self.step(loss)
        self._train_discriminator(features.detach(), weight)
        return {"loss": scalar(loss)}

    def _train_discriminator(self, features: Tensor, weight: float) -> None:
        """Take one step of the discriminator, with target 1 for noise and 0 for `features` (B, d)."""
        smoothing = self.hparams["urm_discriminator_label_smoothing"]
        noise = uniform_noise(features.shape, features.device, self.lowest, 1.0)
        of_noise, of_features = self.discriminator(noise), self.discriminator(features)
        if smoothing > 0:
            noise_targets = uniform_noise(of_noise.shape, features.device, 1 - smoothing, 1.0)
            feature_targets = uniform_noise(of_features.shape, features.device, 0.0, smoothing)
        else:
            noise_targets, feature_targets = torch.ones_like(of_noise), torch.zeros_like(of_features)
        loss = binary_loss(of_noise, noise_targets) + weight * binary_loss(of_features, feature_targets)
        descend(loss, self.discriminator_opt)


def discriminator(n_features: int, hidden_layers: int) -> nn.Sequential:
    """A new network from features (B, n_features) to the logit (B, 1) that they are noise."""
    network = nn.Sequential()
    for i in range(1, hidden_layers + 2):
        network.add_module(f"dense{i}", nn.Linear(n_features if i == 1 else HIDDEN, HIDDEN))
        network.add_module(f"act{i}", nn.LeakyReLU())
    network.add_module("output", nn.Linear(HIDDEN, 1))
    return network


def binary_loss(logits: Tensor, targets: Tensor) -> Tensor:
    """Mean binary cross-entropy (0-d) of `logits` for `targets` between 0 and 1, of the same shape."""
    return F.binary_cross_entropy_with_logits(logits, targets.to(logits.dtype))


def uniform_noise(shape: torch.Size, device: torch.device, low: float, high: float) -> Tensor:
    """Numbers of the given shape, drawn from U(low, high)."""
    return (high - low) * torch.rand(shape, device=device) + low

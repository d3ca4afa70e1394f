"""Features of a uniform distribution: a risk that is spread evenly over the space of features."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn, optim

from domainbed.algorithms import REGISTRY
from domainbed.algorithms.base import DeviceScalar, Minibatch, concatenate, descend, scalar
from domainbed.algorithms.erm import ERM
from domainbed.algorithms.optimizers import adam
from domainbed.datasets import by_size
from domainbed.errors import UsageError, check_choice
from domainbed.hparams import Hparam, Kind, choice, const, log10_uniform, uniform

ACTIVATIONS: dict[str, type[nn.Module]] = {"tanh": nn.Tanh, "sigmoid": nn.Sigmoid, "relu": nn.ReLU}
"""What may come after the featurizer; the noise is from -1 to 1 with tanh, from 0 to 1 with the others."""
HIDDEN = 100
"""Units of a hidden layer of the discriminator."""


@REGISTRY.register()
class URM(ERM):
    """Uniform risk minimisation (Krishnamachari et al. 2024, TMLR, OpenReview PgLbS5yp8n).

    A discriminator tells the features, bounded by an activation, from uniform noise of their shape; the
    featurizer learns to deceive it. Needs, beyond an ERM step, three passes through a small network.
    Draws from the global generator of the features' device: the noise, and with label smoothing the
    targets of the noise and of the features.

    Raises: UsageError for an activation without bounds (`identity`), an unknown optimizer, or a featurizer
    that has no `activation`.
    """

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
        "urm_discriminator_optimizer": Hparam("adam", const("adam"), "adam or sgd"),
        "urm_discriminator_hidden_layers": Hparam(
            1, choice(1, 2, 3), "hidden layers after the first", at_least=0
        ),
        "urm_generator_output": Hparam(
            "tanh", choice("tanh", "relu"), "activation after the featurizer: tanh, sigmoid or relu"
        ),
        "urm_discriminator_lr": by_size(
            small=Hparam(1e-3, log10_uniform(-5.5, -3.5), "discriminator's learning rate", above=0),
            large=Hparam(5e-5, log10_uniform(-6, -4.5), "discriminator's learning rate", above=0),
        ),
    }

    def __init__(
        self, input_shape: tuple[int, ...], num_classes: int, num_domains: int, hparams: dict[str, Any]
    ) -> None:
        output, optimizer = hparams["urm_generator_output"], hparams["urm_discriminator_optimizer"]
        check_choice("hyper-parameter urm_generator_output is", output, ACTIVATIONS)
        check_choice("hyper-parameter urm_discriminator_optimizer is", optimizer, ("adam", "sgd"))
        super().__init__(input_shape, num_classes, num_domains, hparams)
        if not isinstance(getattr(self.featurizer, "activation", None), nn.Module):
            raise UsageError(
                f"URM bounds the features by the featurizer's module `activation`, which "
                f"{type(self.featurizer).__name__} does not have; name another one as hyper-parameter "
                '"featurizer"'
            )
        self.discriminator = discriminator(
            self.featurizer.n_outputs, hparams["urm_discriminator_hidden_layers"]
        )
        self.discriminator_opt = self._discriminator_optimizer(optimizer)
        self.featurizer.activation = ACTIVATIONS[output]()
        self.lowest = -1.0 if output == "tanh" else 0.0

    def _discriminator_optimizer(self, name: str) -> optim.Optimizer:
        parameters = self.discriminator.parameters()
        lr, weight_decay = self.hparams["urm_discriminator_lr"], self.hparams["weight_decay"]
        if name == "sgd":
            return optim.SGD(parameters, lr=lr, momentum=0.9, weight_decay=weight_decay)
        return adam(parameters, lr=lr, weight_decay=weight_decay)

    def update(
        self, minibatches: Sequence[Minibatch], unlabeled: Sequence[Tensor] | None = None
    ) -> Mapping[str, float | DeviceScalar]:
        weight = self.hparams["urm_adv_lambda"]
        x, y = concatenate(minibatches)
        features = self.featurizer(x)
        risk = F.cross_entropy(self.classifier(features), y)
        taken_for_noise = self.discriminator(features)
        deceived = binary_loss(taken_for_noise, torch.ones_like(taken_for_noise))
        loss = risk + weight * deceived
        self.step(loss)
        self._train_discriminator(features.detach(), weight)
        return {"loss": scalar(loss)}

    def _train_discriminator(self, features: Tensor, weight: float) -> None:
        """One step of the discriminator: noise is 1, `features` (B, d) are 0."""
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
    """Features (B, n_features) to the logit (B, 1) that they are noise."""
    network = nn.Sequential()
    for i in range(1, hidden_layers + 2):
        network.add_module(f"dense{i}", nn.Linear(n_features if i == 1 else HIDDEN, HIDDEN))
        network.add_module(f"act{i}", nn.LeakyReLU())
    network.add_module("output", nn.Linear(HIDDEN, 1))
    return network


def binary_loss(logits: Tensor, targets: Tensor) -> Tensor:
    """Mean binary cross-entropy of `logits` for `targets` between 0 and 1, of the same shape."""
    return F.binary_cross_entropy_with_logits(logits, targets.to(logits.dtype))


def uniform_noise(shape: torch.Size, device: torch.device, low: float, high: float) -> Tensor:
    """Numbers drawn from U(low, high)."""
    return (high - low) * torch.rand(shape, device=device) + low

"""Domain-adversarial networks: features from which a discriminator cannot tell the environment."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn, optim

from domainbed import networks
from domainbed.algorithms import REGISTRY
from domainbed.algorithms.base import (
    Algorithm,
    DeviceScalar,
    Minibatch,
    concatenate,
    descend,
    environment_labels,
    scalar,
)
from domainbed.algorithms.precision import at_least_float32
from domainbed.algorithms.turns import TakesTurns
from domainbed.hparams import Hparam, choice, log2_int, log10_uniform


class AbstractDANN(TakesTurns, Algorithm):
    """Base of DANN and CDANN: the discriminator and the generator (featurizer, classifier) take turns.

    Names of hyper-parameters that end in d are the discriminator's, in g the generator's. With one
    source environment there is nothing to discriminate, and the generator's turns are ERM's steps.

    Args:
        conditional: add a learned embedding of the label to the discriminator's input.
        class_balance: every class has the same weight in the discriminator's loss.
    """

    HPARAMS = {
        "lambda": Hparam(1.0, log10_uniform(-2, 2), "weight of the discriminator's loss", at_least=0),
        "weight_decay_d": Hparam(0.0, log10_uniform(-6, -2), "weight decay", at_least=0),
        "d_steps_per_g_step": Hparam(1, log2_int(0, 3), "discriminator's turns to one", at_least=0),
        "grad_penalty": Hparam(0.0, log10_uniform(-2, 1), "weight of the gradient penalty", at_least=0),
        "beta1": Hparam(0.5, choice(0.0, 0.5), "Adam's decay of the mean gradient", at_least=0),
        "mlp_width": Hparam(256, log2_int(6, 10), "units of the discriminator's layers", at_least=1),
        "mlp_depth": Hparam(3, choice(3, 4, 5), "layers of the discriminator", at_least=2),
        "mlp_dropout": Hparam(0.0, choice(0.0, 0.1, 0.5), "dropout in the discriminator"),
    }
    OPTIMISATION = {
        "lr_g": Algorithm.OPTIMISATION["lr"],
        "lr_d": Algorithm.OPTIMISATION["lr"],
        "weight_decay_g": Algorithm.OPTIMISATION["weight_decay"],
    }

    def __init__(
        self,
        input_shape: tuple[int, ...],
        num_classes: int,
        num_domains: int,
        hparams: dict[str, Any],
        conditional: bool = False,
        class_balance: bool = False,
    ) -> None:
        super().__init__(input_shape, num_classes, num_domains, hparams)
        self.conditional = conditional
        self.class_balance = class_balance
        self.featurizer = networks.Featurizer(input_shape, hparams)
        n_features = self.featurizer.n_outputs
        self.classifier = networks.Classifier(n_features, num_classes, hparams["nonlinear_classifier"])
        self.discriminator = networks.MLP(n_features, num_domains, hparams)
        self.class_embeddings = nn.Embedding(num_classes, n_features)
        self.disc_opt = self._optimizer("d", self.discriminator, self.class_embeddings)
        self.gen_opt = self._optimizer("g", self.featurizer, self.classifier)

    def _optimizer(self, player: str, *modules: nn.Module) -> optim.Adam:
        lr, weight_decay = (self.hparams[f"{name}_{player}"] for name in ("lr", "weight_decay"))
        return self.player(*modules, lr=lr, weight_decay=weight_decay)

    def update(
        self, minibatches: Sequence[Minibatch], unlabeled: Sequence[Tensor] | None = None
    ) -> Mapping[str, float | DeviceScalar]:
        x, y = concatenate(minibatches)
        environments = environment_labels(minibatches)
        discriminators_turn = self.discriminators_turn()
        # The discriminator's turns would throw the featurizer's gradient away.
        with torch.set_grad_enabled(not discriminators_turn):
            features = self.featurizer(x)
        disc_loss = self._discriminator_loss(features, y, environments)
        if discriminators_turn:
            descend(disc_loss, self.disc_opt)
            return {"disc_loss": scalar(disc_loss)}
        gen_loss = F.cross_entropy(self.classifier(features), y) - self.hparams["lambda"] * disc_loss
        descend(gen_loss, self.gen_opt)
        return {"gen_loss": scalar(gen_loss)}

    def _discriminator_loss(self, features: Tensor, y: Tensor, environments: Tensor) -> Tensor:
        inputs = features + self.class_embeddings(y) if self.conditional else features
        coefficient = self.hparams["grad_penalty"]
        if coefficient:
            inputs.requires_grad_()
        logits = self.discriminator(inputs)
        losses = F.cross_entropy(logits, environments, reduction="none")
        loss = (balanced_weights(y) * losses).sum() if self.class_balance else losses.mean()
        return loss + coefficient * gradient_penalty(losses, inputs) if coefficient else loss

    def predict(self, x: Tensor) -> Tensor:
        logits: Tensor = self.classifier(self.featurizer(x))
        return logits


def balanced_weights(labels: Tensor) -> Tensor:
    """Weights (B,), float32, with which each class that occurs in `labels` (B,) has the same sum, 1 / C.

    C is the largest label that occurs, plus 1 (upstream's), not the number of classes.
    """
    of_the_class = (labels[:, None] == labels).sum(dim=1)
    return 1 / (of_the_class * (labels.max() + 1)).float()


def gradient_penalty(losses: Tensor, inputs: Tensor) -> Tensor:
    """Mean over samples of the squared norm of the gradient of their `losses` (B,) by their `inputs` (B, d).

    It can be differentiated.
    """
    (gradient,) = torch.autograd.grad(losses.sum(), [inputs], create_graph=True)
    return at_least_float32(gradient).square().sum(dim=1).mean()


@REGISTRY.register()
class DANN(AbstractDANN):
    """Domain-adversarial neural networks (Ganin et al. 2015, arXiv 1505.07818).

    Of 1 + `d_steps_per_g_step` updates one trains the featurizer and the classifier, against the
    discriminator; it costs an ERM step and a pass through the discriminator, the others a forward pass.
    With a gradient penalty the discriminator is differentiated twice.
    """


@REGISTRY.register()
class CDANN(AbstractDANN):
    """Conditional domain-adversarial networks (Li et al., ECCV 2018, Deep Domain Generalization).

    DANN whose discriminator knows the label (its embedding is added to the features), and gives every
    class the same weight. Time and memory are DANN's.
    """

    def __init__(
        self, input_shape: tuple[int, ...], num_classes: int, num_domains: int, hparams: dict[str, Any]
    ) -> None:
        super().__init__(input_shape, num_classes, num_domains, hparams, conditional=True, class_balance=True)

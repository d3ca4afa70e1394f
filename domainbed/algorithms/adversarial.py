"""Domain-adversarial networks: a discriminator must not recognise the environment from the features."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn, optim

from domainbed import networks
from domainbed.algorithms import REGISTRY
from domainbed.algorithms.base import Algorithm, Metrics, Minibatch, concatenate, scalar
from domainbed.algorithms.environments import environment_labels
from domainbed.algorithms.facts import Facts
from domainbed.algorithms.optimizers import descend
from domainbed.algorithms.precision import at_least_float32
from domainbed.algorithms.update_count import AlternatingUpdates
from domainbed.hparams import Hparam, choice, log2_int, log10_uniform


class AbstractDANN(AlternatingUpdates):
    """Base of DANN and CDANN: updates of the discriminator and of the generator, in turn.

    The generator is the featurizer with the classifier. Names of hyper-parameters end in d for the
    discriminator, in g for the generator. With one source environment, generator updates equal ERM's.

    Args:
        conditional: whether a learned embedding of the label is added to the discriminator's input.
        class_balance: whether all classes have the same weight in the discriminator's loss.
    """

    HPARAMS = {
        "lambda": Hparam(1.0, log10_uniform(-2, 2), "weight of the discriminator's loss", at_least=0),
        "weight_decay_d": Hparam(0.0, log10_uniform(-6, -2), "weight decay of the discriminator", at_least=0),
        "d_steps_per_g_step": Hparam(
            1, log2_int(0, 3), "discriminator updates for each generator update", at_least=0
        ),
        "grad_penalty": Hparam(0.0, log10_uniform(-2, 1), "weight of the gradient penalty", at_least=0),
        "beta1": Hparam(0.5, choice(0.0, 0.5), "Adam's decay of the mean gradient", at_least=0),
        "mlp_width": Hparam(256, log2_int(6, 10), "units of the discriminator's layers", at_least=1),
        "mlp_depth": Hparam(3, choice(3, 4, 5), "number of layers of the discriminator", at_least=2),
        "mlp_dropout": Hparam(
            0.0, choice(0.0, 0.1, 0.5), "dropout probability in the discriminator", at_least=0, at_most=1
        ),
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
        networks.start_from_text(self.classifier, self.featurizer)
        self.discriminator = networks.MLP(n_features, num_domains, hparams)
        self.class_embeddings = nn.Embedding(num_classes, n_features)
        self.disc_opt = self._optimizer("d", self.discriminator, self.class_embeddings)
        self.gen_opt = self._optimizer("g", self.featurizer, self.classifier)

    def _optimizer(self, player: str, *modules: nn.Module) -> optim.Optimizer:
        lr, weight_decay = self.hparams[f"lr_{player}"], self.hparams[f"weight_decay_{player}"]
        return self.optimizer_for(*modules, lr=lr, weight_decay=weight_decay)

    def update(self, minibatches: Sequence[Minibatch], unlabeled: Sequence[Tensor] | None = None) -> Metrics:
        x, y = concatenate(minibatches)
        environments = environment_labels(minibatches)
        trains_discriminator = self.is_discriminator_update()
        # A discriminator update does not use the featurizer's gradient.
        with torch.set_grad_enabled(not trains_discriminator):
            features = self.featurizer(x)
        disc_loss = self._discriminator_loss(features, y, environments)
        if trains_discriminator:
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
    """Weights (B,), float32, that sum to 1 / C over the samples of each class that occurs in `labels` (B,).

    As in upstream, C is the largest label that occurs plus 1, not the number of classes.
    """
    class_sizes = (labels[:, None] == labels).sum(dim=1)
    return 1 / (class_sizes * (labels.max() + 1)).float()


def gradient_penalty(losses: Tensor, inputs: Tensor) -> Tensor:
    """Mean squared norm of the gradients of the samples' losses by their own inputs; 0-d, differentiable.

    Args:
        losses: (B,).
        inputs: (B, d).
    """
    (gradient,) = torch.autograd.grad(losses.sum(), [inputs], create_graph=True)
    return at_least_float32(gradient).square().sum(dim=1).mean()


@REGISTRY.register()
class DANN(AbstractDANN):
    """Domain-adversarial neural networks (Ganin et al. 2015, section 4).

    A discriminator is trained to recognise the environment from the features, and the featurizer to prevent
    that. Discriminator and generator updates alternate.
    """

    FACTS = Facts(
        year=2015,
        paper="Ganin et al., Domain-adversarial training of neural networks, arXiv 1505.07818",
        idea="A discriminator must not recognise the environment from the features",
        time="2 / 3",
        cost=(
            "A generator update is an ERM step, a discriminator update a forward pass; by default they "
            "alternate. A gradient penalty differentiates the discriminator twice."
        ),
        one_environment="ERM",
        departures=(
            "Updates of the two alternate instead of reversing the gradient, as upstream. A gradient "
            "penalty of weight 0 is not computed."
        ),
    )


@REGISTRY.register()
class CDANN(AbstractDANN):
    """Conditional invariant adversarial networks (Li et al., ECCV 2018).

    DANN with a discriminator that also sees the label, through an embedding added to the features, and whose
    loss has the same weight for every class.
    """

    FACTS = Facts(
        year=2018,
        paper="Li et al., Deep domain generalization via conditional invariant adversarial networks, ECCV",
        idea="DANN whose discriminator also sees the label, with equal weight for every class",
        time="2 / 3",
        cost="As DANN.",
        one_environment="ERM",
        departures="As DANN. Classes are counted up to the largest label in the batch, as upstream.",
    )

    def __init__(
        self, input_shape: tuple[int, ...], num_classes: int, num_domains: int, hparams: dict[str, Any]
    ) -> None:
        super().__init__(input_shape, num_classes, num_domains, hparams, conditional=True, class_balance=True)

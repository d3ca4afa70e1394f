"""Methods that combine the gradients of the K source environments: what they share, and two kinds of rule.

The third kind of rule, weights that follow from the losses, needs no such gradients: see `loss_weights`.
"""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Sequence
from typing import Any, ClassVar, Literal

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from domainbed.algorithms.base import Metrics, Minibatch, scalar
from domainbed.algorithms.erm import ERM
from domainbed.gradients.comparison import Combined
from domainbed.gradients.componentwise import Block
from domainbed.gradients.engine import PASSES, RULES, GradientEngine
from domainbed.gradients.gram import length_tolerance
from domainbed.gradients.vectors import set_gradient
from domainbed.hparams import Hparam, Kind, const


class EnvironmentGradients(ERM):
    """Base: the optimizer gets one gradient made from those of the environments, at the price of an ERM step.

    How the gradients are made is the engine's business: by one pass over all samples or one for each
    environment, in one process or several. The results are equal up to rounding. A subclass is a
    `ComponentwiseMethod` or a `GramMethod`, and may change the combined gradient in `finish`.
    """

    SCALE: ClassVar[Literal["sum", "mean"]] = "mean"
    """Whether the rule gives a direction on the scale of the gradients' sum or of their mean."""
    SWITCHES = {
        "passes": Hparam(
            "auto",
            const("auto"),
            "how environments' gradients are made: auto, joint (one pass) or separate",
            choices=PASSES,
            kind=Kind.INCIDENTAL,
        ),
        "rules": Hparam(
            "auto",
            const("auto"),
            "rules over gradients: auto (large ones compiled) or plain",
            choices=RULES,
            kind=Kind.INCIDENTAL,
        ),
    }

    def __init__(
        self, input_shape: tuple[int, ...], num_classes: int, num_domains: int, hparams: dict[str, Any]
    ) -> None:
        super().__init__(input_shape, num_classes, num_domains, hparams)
        # A user's class that predicts or measures in its own way may mix samples.
        own = type(self).predict is ERM.predict and type(self).loss_of is EnvironmentGradients.loss_of
        self.engine = GradientEngine(
            self,
            samplewise=own and self.featurizer.SAMPLEWISE,
            passes=str(self.switch("passes")),
            rules=str(self.switch("rules")),
        )

    def update(self, minibatches: Sequence[Minibatch], unlabeled: Sequence[Tensor] | None = None) -> Metrics:
        losses, combined = self.combined(minibatches, self.environment_seeds(minibatches))
        with torch.no_grad():
            self.finish(combined)
        self.descend(combined.gradient)
        loss = self.process_group.weighted_mean(losses.mean(), len(losses))
        values = {"loss": loss, **combined.logged}
        return {name: scalar(value) if isinstance(value, Tensor) else value for name, value in values.items()}

    @abstractmethod
    def combined(self, minibatches: Sequence[Minibatch], seeds: Sequence[int]) -> tuple[Tensor, Combined]:
        """Losses of this process's environments, and the combined gradient with what was measured.

        Args:
            minibatches: one an environment.
            seeds: seed of each environment's draws, e.g. for dropout.
        """

    def finish(self, combined: Combined) -> None:
        """Change `combined.gradient` in place, and add numbers for the records to `combined.logged`."""

    def descend(self, gradient: Tensor) -> None:
        """One step of the optimizer with the combined gradient (P,)."""
        set_gradient(self.trained_parameters(), gradient)
        self.optimizer.step()

    def factor(self, num_environments: int) -> float:
        """Factor on what the rule gives, of K environments."""
        return 1.0

    def environment_seeds(self, minibatches: Sequence[Minibatch]) -> list[int]:
        """Seeds of the random numbers, e.g. for dropout, that each environment's loss draws."""
        return torch.randint(2**62, (len(minibatches),)).tolist()

    def draw_seed(self) -> int:
        """Seed of the numbers that the rule itself draws in this update."""
        raise NotImplementedError

    def loss_of(self, x: Tensor, y: Tensor) -> Tensor:
        """Loss (0-d) of one environment."""
        return F.cross_entropy(self.predict(x), y)


class ComponentwiseMethod(EnvironmentGradients):
    """Base of rules that look at each component by itself. A subclass gives `combine`."""

    DISTRIBUTED = True
    DRAWS: ClassVar[bool] = False
    """Whether `combine` draws random numbers, by `gradients.uniform()`."""

    @abstractmethod
    def combine(self, gradients: Block) -> Tensor | tuple[Tensor, Tensor]:
        """The combined gradient (m,) of the K environments' gradients (m,) by the same m components.

        A rule that weighs components may return (combined gradient, weight of each component (m,)). Then
        `Combined.weights` has the weights of all components.
        """

    def combined(self, minibatches: Sequence[Minibatch], seeds: Sequence[int]) -> tuple[Tensor, Combined]:
        factor = self.factor(self.process_group.sum_int(len(minibatches)))
        draw_seed = self.draw_seed() if self.DRAWS else None
        return self.engine.componentwise(minibatches, seeds, self.combine, factor, draw_seed)


class GramMethod(EnvironmentGradients):
    """Base of rules that see the inner products of the gradients only. A subclass gives `weights`.

    Where a rule defines no direction, or an inner product is not finite, the mean gradient stands in.
    """

    DISTRIBUTED = True

    @property
    def tolerance(self) -> float:
        """Length below which combined unit gradients may be rounding alone: see `length_tolerance`."""
        parameters = self.trained_parameters()
        return length_tolerance(parameters[0].dtype, sum(each.numel() for each in parameters))

    @abstractmethod
    def weights(self, gram: np.ndarray) -> np.ndarray:
        """Weights (K,) of the inner products (K, K), both float64: the combined gradient is sum_k w_k g_k.

        Raises: NoDirection where the method defines none.
        """

    def combined(self, minibatches: Sequence[Minibatch], seeds: Sequence[int]) -> tuple[Tensor, Combined]:
        k = self.process_group.sum_int(len(minibatches))
        fallback = 1 / k if self.SCALE == "mean" else 1.0
        return self.engine.by_weights(minibatches, seeds, self.weights, fallback, self.factor(k))

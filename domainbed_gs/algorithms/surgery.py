"""Gradient surgery: ERM with another rule for combining the environments' gradients."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any, ClassVar

import torch
from torch import Tensor, optim

from domainbed.algorithms.base import Metrics, Minibatch
from domainbed.algorithms.environment_gradients import ComponentwiseMethod, EnvironmentGradients, GramMethod
from domainbed.algorithms.optimizers import OptimizerChoice
from domainbed.algorithms.update_count import UpdateCount
from domainbed.errors import UsageError
from domainbed.gradients.comparison import Combined
from domainbed.gradients.vectors import flat, set_values
from domainbed.hparams import Hparam, const
from domainbed.seeds import counter_seed, global_seed


class GradientSurgery(UpdateCount, EnvironmentGradients):
    """Base: the K environments' gradients become one, which the optimizer follows.

    Cost: an ERM step and the rule.

    Random numbers of a rule come from generators of their own, seeded by the run's seed and the update.

    Every update returns, beside `loss` (the mean over environments):
        agreement: share of components in which all environments' signs agree;
        zeros: share of components that are 0 in at least one environment; 2^(1-K) (1 - zeros) agree by
            chance;
        cosine: mean cosine similarity over pairs of environments, for K > 1;
        removed: 1 - |g*| / |sum_k g_k| with both as sums, the share of the summed gradient's norm that the
            surgery removes (without the noise that a method adds; negative if the norm grows).
    """

    HPARAMS = {
        "reduction": Hparam(
            "sum", const("sum"), "scale of the combined gradient: sum or mean", choices=("sum", "mean")
        ),
        "shared_dropout": Hparam(False, const(False), "the same dropout masks in every environment"),
        "wd": Hparam(
            "coupled",
            const("coupled"),
            "weight decay: coupled (Adam) or decoupled (AdamW)",
            choices=("coupled", "decoupled"),
        ),
    }
    STATE: ClassVar[tuple[str, ...]] = ("surgery_seed",)

    def __init__(
        self, input_shape: tuple[int, ...], num_classes: int, num_domains: int, hparams: dict[str, Any]
    ) -> None:
        super().__init__(input_shape, num_classes, num_domains, hparams)
        self.surgery_seed = global_seed()

    @classmethod
    def unread_hparams(cls, given: Mapping[str, object]) -> dict[str, str]:
        found = super().unread_hparams(given)
        if given.get("wd") == "coupled" and cls.optimizer_choice(given).name == "AdamW":
            found["wd"] = "'optimizer' is 'AdamW', whose weight decay is decoupled"
        return found

    @classmethod
    def optimizer_choice(cls, hparams: Mapping[str, Any]) -> OptimizerChoice:
        choice = super().optimizer_choice(hparams)
        if hparams.get("wd") != "decoupled" or choice.name == "AdamW":
            return choice
        if choice.name != "Adam":
            raise UsageError(
                f"wd decoupled makes AdamW of Adam, and optimizer is {choice.name}; leave one of the two out"
            )
        return replace(choice, name="AdamW")

    def new_optimizer(self, lr: float | None = None) -> optim.Optimizer:
        decay = 0.0 if self.hparams["wd"] == "masked" else self.hparams["weight_decay"]
        lr = self.hparams["lr"] if lr is None else lr
        return self.optimizer_over(self.network.parameters(), lr, decay)

    def update(self, minibatches: Sequence[Minibatch], unlabeled: Sequence[Tensor] | None = None) -> Metrics:
        values = super().update(minibatches, unlabeled)
        self.count_update()
        return values

    def finish(self, combined: Combined) -> None:
        k = combined.num_environments
        combined.logged["agreement"] = combined.agreement
        combined.logged["zeros"] = combined.zero_share
        if k > 1:
            combined.logged["cosine"] = combined.cosine
        combined.logged["removed"] = combined.removed(k if self.hparams["reduction"] == "mean" else 1)

    def factor(self, num_environments: int) -> float:
        if self.hparams["reduction"] == self.SCALE:
            return 1.0
        return num_environments if self.SCALE == "mean" else 1 / num_environments

    def environment_seeds(self, minibatches: Sequence[Minibatch]) -> list[int]:
        seeds = super().environment_seeds(minibatches)
        if self.hparams["shared_dropout"]:
            return [int(self.process_group.broadcast(torch.tensor(seeds[0])))] * len(seeds)
        return seeds

    def draw_seed(self) -> int:
        return counter_seed(self.surgery_seed, self.updates)


class ComponentwiseSurgery(GradientSurgery, ComponentwiseMethod):
    """Base of surgeries that look at each component by itself. A subclass gives `combine`.

    A component that the rule sets to 0 still moves by Adam's momentum and by coupled weight decay: `wd`
    "masked" lets decay act on the other components only, and `freeze_masked` leaves such weights as they are.
    """

    DISTRIBUTED = True
    SCALE = "sum"
    HPARAMS = {
        "wd": Hparam(
            "coupled",
            const("coupled"),
            "weight decay: coupled (Adam), decoupled (AdamW), or masked (not where the rule gives 0)",
            choices=("coupled", "decoupled", "masked"),
        ),
        "freeze_masked": Hparam(False, const(False), "weights where the rule gives 0 stay as they are"),
    }
    TRANSIENT = ("_frozen",)

    def finish(self, combined: Combined) -> None:
        super().finish(combined)
        zero = None
        if self.hparams["freeze_masked"] or self.hparams["wd"] == "masked":
            zero = combined.gradient == 0
        if zero is not None and self.hparams["wd"] == "masked":
            decay = self.hparams["weight_decay"] * flat(self.trained_parameters())
            combined.gradient += decay.masked_fill_(zero, 0)
        self._frozen = zero if self.hparams["freeze_masked"] else None

    def descend(self, gradient: Tensor) -> None:
        if self._frozen is None:
            super().descend(gradient)
            return
        parameters = self.trained_parameters()
        before = flat(parameters)
        super().descend(gradient)
        set_values(parameters, torch.where(self._frozen, before, flat(parameters)))


class GramSurgery(GradientSurgery, GramMethod):
    """Base of surgeries that see the gradients' inner products only. A subclass gives `weights`.

    Where the method defines no direction the update is the mean's; `fallback` logs the share of such updates.
    """

    DISTRIBUTED = True
    HPARAMS = {
        "reduction": Hparam(
            "mean", const("mean"), "scale of the combined gradient: sum or mean", choices=("sum", "mean")
        ),
    }

    def finish(self, combined: Combined) -> None:
        super().finish(combined)
        combined.logged["fallback"] = float(combined.fallback)

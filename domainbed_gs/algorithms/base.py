"""What every gradient surgery does as an algorithm: K gradients in, one out, and what is logged."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, ClassVar, Literal

import torch
from torch import Tensor, nn, optim

from domainbed.algorithms.base import DeviceScalar, Minibatch, scalar
from domainbed.algorithms.environment_gradients import EnvironmentGradients
from domainbed.algorithms.optimizers import adam
from domainbed.algorithms.update_count import UpdateCount
from domainbed.errors import check_choice
from domainbed.gradients.domain_gradients import flat, set_gradient, set_values
from domainbed.gradients.joint_pass import JointPass
from domainbed.hparams import Hparam, const
from domainbed.seeds import counter_seed

Stats = dict[str, Tensor | float]
Scale = Literal["sum", "mean"]


@dataclass(frozen=True)
class Operation:
    """What a surgery did.

    Attributes:
        gradient: the combined gradient (P,).
        stats: numbers to log.
        frozen: components (P,) bool whose weights the step must leave as they are; None for none.
    """

    gradient: Tensor
    stats: Stats
    frozen: Tensor | None = None


class GradientSurgery(UpdateCount, EnvironmentGradients):
    """Base: K gradients, one for each source environment, become one, which goes to Adam.

    A subclass says how in `operate`, and may say in `operate_jointly` how without holding the gradients. One
    update costs one ERM step plus a pass over the gradients. Random numbers of the surgery come from
    generators of their own, seeded by the run's seed and the update, so that they depend on nothing else.

    Every update returns, beside `loss` (the mean over environments):
        agreement: share of components in which all environments' signs agree (2^(1-K) by chance);
        cosine: mean cosine similarity over pairs of environments;
        removed: 1 - |g*| / |sum_k g_k| with both as sums, the share of the summed gradient's norm that the
            surgery took away (noise that it added not counted; negative if the norm grew).

    A rule gives a direction on the scale of a sum over environments or of a mean. The hyper-parameter
    `reduction` says on which the optimizer gets it, for all rules alike: "sum" is K times "mean". By
    default a rule's direction goes to the optimizer as it is.
    """

    HPARAMS = {
        "reduction": Hparam("sum", const("sum"), "scale of the combined gradient: sum or mean"),
        "shared_dropout": Hparam(False, const(False), "the same dropout masks in every environment"),
        "wd": Hparam("coupled", const("coupled"), "weight decay: coupled (Adam), decoupled (AdamW), masked"),
    }
    STATE = ("surgery_seed",)
    WD: ClassVar[tuple[str, ...]] = ("coupled", "decoupled")
    scale: Scale = "sum"
    """On which scale the rule gives its direction."""

    def __init__(
        self, input_shape: tuple[int, ...], num_classes: int, num_domains: int, hparams: dict[str, Any]
    ) -> None:
        check_choice("hyper-parameter reduction is", hparams["reduction"], ("sum", "mean"))
        check_choice("hyper-parameter wd is", hparams["wd"], self.WD)
        super().__init__(input_shape, num_classes, num_domains, hparams)
        # The run's seed, if the global generator was seeded with it as in `train`.
        self.surgery_seed = torch.initial_seed() % 2**63

    def new_optimizer(self, lr: float | None = None) -> optim.Optimizer:
        if self.hparams["wd"] == "coupled":
            return super().new_optimizer(lr)
        decay = self.hparams["weight_decay"] if self.hparams["wd"] == "decoupled" else 0.0
        lr = self.hparams["lr"] if lr is None else lr
        return adam(self.network.parameters(), lr, decay, decoupled=True)

    def update(
        self, minibatches: Sequence[Minibatch], unlabeled: Sequence[Tensor] | None = None
    ) -> Mapping[str, float | DeviceScalar]:
        parameters = self.trained_parameters()
        losses, operation = self._operation(minibatches, parameters)
        set_gradient(parameters, operation.gradient)
        before = None if operation.frozen is None else flat(parameters)
        self.optimizer.step()
        if operation.frozen is not None and before is not None:
            set_values(parameters, torch.where(operation.frozen, before, flat(parameters)))
        self.count_update()
        loss = self.process_group.weighted_mean(losses.mean(), len(losses))
        stats: Stats = {"loss": loss, **operation.stats}
        if self.process_group.sum_int(len(losses)) == 1:
            del stats["cosine"]  # there is no pair
        return {name: scalar(value) if isinstance(value, Tensor) else value for name, value in stats.items()}

    def environment_seeds(self, minibatches: Sequence[Minibatch]) -> list[int]:
        seeds = super().environment_seeds(minibatches)
        if self.hparams["shared_dropout"]:
            return [int(self.process_group.broadcast(torch.tensor(seeds[0])))] * len(seeds)
        return seeds

    def _operation(
        self, minibatches: Sequence[Minibatch], parameters: Sequence[nn.Parameter]
    ) -> tuple[Tensor, Operation]:
        """The environments' losses (K,), and what became of their gradients."""
        seeds = self.environment_seeds(minibatches)
        joint = self.joint_pass(minibatches, parameters, seeds) if self.operates_jointly() else None
        if joint is not None:
            return joint.losses, self.operate_jointly(joint, parameters)
        losses: list[Tensor] = []
        operation = self.operate(self.separate_passes(minibatches, parameters, seeds, losses), parameters)
        return torch.stack(losses), operation

    def operates_jointly(self) -> bool:
        """Whether there is an `operate_jointly`, and it belongs to this very `operate`."""
        for base in type(self).__mro__:
            if "operate_jointly" in base.__dict__:
                return base is not GradientSurgery
            if "operate" in base.__dict__:
                return False
        return False

    def operate(self, gradients: Iterator[Tensor], parameters: Sequence[nn.Parameter]) -> Operation:
        """Combine the environments' gradients (P,), which are made as they are asked for.

        Where several processes share the update (`DISTRIBUTED`), they are those of this one's environments,
        and the result is that of all.
        """
        raise NotImplementedError

    def operate_jointly(self, joint: JointPass, parameters: Sequence[nn.Parameter]) -> Operation:
        """The same from one pass over all environments."""
        raise NotImplementedError

    def factor(self, num_environments: int, reduction: str | None = None) -> float:
        """What takes the rule's direction to the scale of `reduction`, by default the hyper-parameter's."""
        reduction = reduction or self.hparams["reduction"]
        if reduction == self.scale:
            return 1.0
        return num_environments if reduction == "sum" else 1 / num_environments

    def noise_seed(self) -> int:
        """Seed of the random numbers that belong to this run and this update alone."""
        return counter_seed(self.surgery_seed, self.updates)

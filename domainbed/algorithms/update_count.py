"""Base classes of algorithms whose update depends on the number of updates before it."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, ClassVar

import numpy as np
import torch
from torch import Tensor, nn, optim

from domainbed.algorithms.base import Algorithm
from domainbed.algorithms.erm import ERM
from domainbed.seeds import generator, global_seed


class UpdateCount(nn.Module):
    """Mixin: counts updates in upstream's buffer `update_count` (int64, shape [1]).

    Attributes:
        updates: the same number as a Python int, which can be read without waiting for the device.
    """

    update_count: Tensor

    def __init__(self, *args: Any) -> None:  # noqa: ANN401 - those of the algorithm
        super().__init__(*args)
        self.register_buffer("update_count", torch.tensor([0]))
        self.updates = 0
        self.register_load_state_dict_post_hook(UpdateCount._read)  # type: ignore[no-untyped-call] # torch's

    def count_update(self) -> None:
        """Add one to the number of updates."""
        self.updates += 1
        self.update_count += 1

    @staticmethod
    def _read(module: nn.Module, _: object) -> None:
        assert isinstance(module, UpdateCount)
        module.updates = int(module.update_count.item())


class UpdateDraws(UpdateCount):
    """Mixin: draws in an update that depend only on the seed of the run and the number of the update."""

    STATE: ClassVar[tuple[str, ...]] = ("order_seed",)

    def __init__(self, *args: Any) -> None:  # noqa: ANN401 - those of the algorithm
        super().__init__(*args)
        self.order_seed = global_seed()

    def draws(self) -> np.random.Generator:
        """A generator for the next update: the same numbers at each call, until the update is counted."""
        return generator(self.order_seed, self.updates)


class AnnealedERM(UpdateCount, ERM):
    """ERM with a loss that changes after some updates, usually by a penalty that reaches its full weight."""

    def annealed_step(self, loss: Tensor, *thresholds: float, lr: float | None = None) -> None:
        """Take one step down `loss` and count the update.

        If the number of updates before this one equals one of `thresholds`, first replace the optimizer by a
        new one: Adam's moments are those of the previous loss.

        Args:
            loss: loss of this update.
            thresholds: numbers of updates after which the loss changes. One that is not an integer is never
                reached.
            lr: learning rate of the new optimizer; None for the hyper-parameter `lr`.
        """
        if self.updates in thresholds:
            self.optimizer = self.new_optimizer(lr)
        self.step(loss)
        self.count_update()


class AlternatingUpdates(UpdateCount, Algorithm):
    """Base: updates of a discriminator and a generator, each with an optimizer, in turn.

    The hyper-parameter `d_steps_per_g_step` is the number d of discriminator updates for each generator
    update. With 0, every update is the generator's. `beta1` is that of both optimizers.
    """

    @classmethod
    def unread_hparams(cls, given: Mapping[str, object]) -> dict[str, str]:
        choice = cls.optimizer_choice(given)
        found = super().unread_hparams(given)
        if "beta1" in given and "betas" not in choice.accepted:
            found["beta1"] = f"'optimizer' is {choice.name!r}"
        elif "beta1" in given and "betas" in choice.options:
            found["beta1"] = "'optimizer_options' sets betas"
        return found

    def optimizer_for(self, *modules: nn.Module, lr: float, weight_decay: float) -> optim.Optimizer:
        """A new optimizer over the parameters of these modules."""
        return self.optimizer_over(
            [parameter for module in modules for parameter in module.parameters()],
            lr=lr,
            weight_decay=weight_decay,
            betas=(self.hparams["beta1"], 0.9),
        )

    def is_discriminator_update(self) -> bool:
        """Count this update, and return whether it trains the discriminator.

        As in upstream, the count comes first. With d = 1 the generator is trained first. With d = 2 the order
        is discriminator, generator, then two discriminator updates and one generator update, repeatedly.
        """
        self.count_update()
        d_steps = self.hparams["d_steps_per_g_step"]
        return bool(self.updates % (1 + d_steps) < d_steps)

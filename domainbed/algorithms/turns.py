"""Two players with an optimizer each: whose turn it is."""

from __future__ import annotations

from typing import Any

from torch import nn, optim

from domainbed.algorithms.base import UpdateCount
from domainbed.algorithms.optimizers import adam


class TakesTurns(UpdateCount):
    """Mixin: the updates of a discriminator and of a generator, d of the former to one of the latter.

    d is the hyper-parameter `d_steps_per_g_step`; with 0 the discriminator never has a turn. `beta1` is
    Adam's for both.
    """

    hparams: dict[str, Any]

    def player(self, *modules: nn.Module, lr: float, weight_decay: float) -> optim.Adam:
        """The optimizer of the player that has these modules."""
        return adam(
            [parameter for module in modules for parameter in module.parameters()],
            lr=lr,
            weight_decay=weight_decay,
            betas=(self.hparams["beta1"], 0.9),
        )

    def discriminators_turn(self) -> bool:
        """Count this update, and say whether it is the discriminator's.

        The count comes first (upstream's order): with d = 1 the generator begins; with d = 2 the
        discriminator has one turn, the generator one, and then it is two and one.
        """
        self.count_update()
        d_steps = self.hparams["d_steps_per_g_step"]
        return bool(self.updates % (1 + d_steps) < d_steps)

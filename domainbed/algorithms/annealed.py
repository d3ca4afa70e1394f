"""Methods whose penalty takes effect after a number of updates."""

from __future__ import annotations

from torch import Tensor

from domainbed.algorithms.base import UpdateCount
from domainbed.algorithms.erm import ERM


class Annealed(UpdateCount, ERM):
    """Base: ERM with a penalty whose weight jumps after some updates; the optimizer starts anew then."""

    def annealed_step(self, loss: Tensor, *thresholds: float, lr: float | None = None) -> None:
        """One step down `loss`, and count it.

        Args:
            loss: of this update, with the weights that hold from `thresholds` on.
            thresholds: numbers of updates after which a weight jumps.
            lr: learning rate from then on; None for the hyper-parameter's.
        """
        if self.updates in thresholds:
            # Adam's moments belong to the loss before the jump of its weight.
            self.optimizer = self.new_optimizer(lr)
        self.step(loss)
        self.count_update()

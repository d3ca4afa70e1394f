"""The processes that share a run's updates, as an algorithm sees them; here the usual case of one alone."""

from __future__ import annotations

from collections.abc import Sequence

from torch import Tensor, optim


class Ranks:
    """One process, which has all source environments: whatever is added up over ranks is its own.

    An algorithm passes through `self.ranks` what it adds up over environments. So its update is the same
    where `training.distributed.Group` stands for several processes, each with some of the environments.
    Results are the same to the bit on every rank. A tensor given to `sum`, `largest` or `first` is
    overwritten.

    Attributes:
        index: number of this process, from 0.
        count: number of processes.
    """

    index: int = 0
    count: int = 1

    def total(self, number: int) -> int:
        """Sum over ranks of a number."""
        return number

    def sum(self, tensor: Tensor) -> Tensor:
        """Sum over ranks of a tensor, detached."""
        return tensor

    def largest(self, tensor: Tensor) -> Tensor:
        """Largest value over ranks of each entry of an integer tensor."""
        return tensor

    def first(self, tensor: Tensor) -> Tensor:
        """Rank 0's tensor, of the same shape and type on every rank."""
        return tensor

    def share(self, value: Tensor, weight: int) -> Tensor:
        """This rank's summand of the weighted mean over ranks of `value` (0-d), differentiable."""
        return value

    def mean(self, value: Tensor, weight: int) -> Tensor:
        """Weighted mean over ranks of `value` (0-d), detached."""
        return self.sum(self.share(value, weight))

    def add_gradients(self, optimizer: optim.Optimizer) -> None:
        """Make the `.grad` of each of the optimizer's parameters that has one the sum over ranks."""

    def shards(self, gradients: Sequence[Tensor]) -> Sequence[Tensor]:
        """Of all K gradients (P,), the components that this rank sees to; in the order of environments.

        Args:
            gradients: those of this rank's environments.
        """
        return gradients

    def whole(self, shard: Tensor, size: int) -> Tensor:
        """The vector (P,), P = `size`, of which each rank gives its shard."""
        return shard


ALONE = Ranks()

"""The processes that share a run's updates, as an algorithm sees them. By default there is only one."""

from __future__ import annotations

from collections.abc import Sequence

from torch import Tensor, optim


class ProcessGroup:
    """A group of one process, which holds all source environments.

    An algorithm passes whatever it sums over environments through `self.process_group`. Its update then also
    works with `training.torchrun.TorchrunGroup`, where each of several processes holds some of the
    environments. Results are identical, bit for bit, on every rank. `sum`, `max` and `broadcast` overwrite
    their argument.

    Attributes:
        rank: index of this process, from 0.
        world_size: number of processes.
    """

    rank: int = 0
    world_size: int = 1

    def sum_int(self, number: int) -> int:
        """Sum of `number` over all ranks."""
        return number

    def own_environments(self, number: int) -> slice:
        """Positions of this rank's `number` environments among all K."""
        return slice(0, number)

    def sum(self, tensor: Tensor) -> Tensor:
        """Sum of `tensor` over all ranks, detached."""
        return tensor

    def max(self, tensor: Tensor) -> Tensor:
        """Elementwise maximum of an integer tensor over all ranks."""
        return tensor

    def broadcast(self, tensor: Tensor) -> Tensor:
        """Rank 0's tensor. `tensor` must have the same shape and dtype on every rank."""
        return tensor

    def weighted_share(self, value: Tensor, weight: int) -> Tensor:
        """This rank's term of the weighted mean of `value` (0-d) over all ranks, differentiable."""
        return value

    def weighted_mean(self, value: Tensor, weight: int) -> Tensor:
        """Weighted mean of `value` (0-d) over all ranks, detached."""
        return self.sum(self.weighted_share(value, weight))

    def sum_gradients(self, optimizer: optim.Optimizer) -> None:
        """Replace each existing `.grad` of the optimizer's parameters by its sum over all ranks."""

    def exchange_shards(self, gradients: Sequence[Tensor]) -> Sequence[Tensor]:
        """This rank's shard of the components of all K gradients (P,), in the order of environments.

        Args:
            gradients: gradients (P,) of this rank's environments, the same number of each.
        """
        return gradients

    def shard(self, size: int) -> slice:
        """Positions of this rank's shard in a vector (P,), with P = `size`."""
        return slice(0, size)

    def gather_shards(self, shard: Tensor, size: int) -> Tensor:
        """The vector (P,), with P = `size`, that consists of every rank's shard."""
        return shard


SINGLE_PROCESS = ProcessGroup()
"""The group of a run in one process."""

"""Averages over the weights that a network had during training."""

from __future__ import annotations

import copy
from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor, nn


class RunningAverage:
    """Mean of the states that a set of named tensors was in, each weighing the same.

    Only the tensors given as `average` are written to; beside them there is one number. The rule is that of
    ERM++ (Teterwak et al. 2023, arXiv 2304.01973; algorithms specification 2, step 3).

    Attributes:
        count: states taken in so far, beside the one that the average started as.
    """

    def __init__(self, count: int = 0) -> None:
        self.count = count

    @torch.no_grad()
    def update(self, average: Mapping[str, Tensor], current: Mapping[str, Tensor]) -> None:
        """Take one more state in: average <- (average * count + current) / (count + 1), with the new count.

        Args:
            average: name -> tensor, changed in place; no two of them share memory. Before the first update it
                is a copy of the first state.
            current: a tensor of the same shape for each of these names. Integers and booleans are copied.
        """
        self.count += 1
        means, states = [], []
        for name, mean in average.items():
            if mean.is_floating_point():
                means.append(mean)
                states.append(current[name])
            else:
                mean.copy_(current[name])
        if means:
            torch._foreach_mul_(means, self.count)
            torch._foreach_add_(means, states)
            torch._foreach_div_(means, self.count + 1)

    def state_dict(self) -> dict[str, Any]:
        """The count; the averaged tensors belong to the caller."""
        return {"count": self.count}

    def load_state_dict(self, state_dict: Mapping[str, Any]) -> None:
        """Take the count back."""
        self.count = int(state_dict["count"])


class ErmPlusPlusMovingAvg:
    """ERM++'s averaged copy of a network: equal to it, and from update `sma_start_iter` on a running mean.

    Running statistics of batch norms are averaged like weights; how many batches they saw is the copy's own.

    Args:
        network: what is averaged.

    Attributes:
        network_sma: the averaged copy, in evaluation mode.
        sma_start_iter: number of the update that the averaging starts with.
        global_iter: updates so far.
    """

    def __init__(self, network: nn.Module) -> None:
        self.network = network
        self.network_sma = copy.deepcopy(network)
        self.network_sma.eval()
        self.sma_start_iter = 600
        self.global_iter = 0
        self.running_average = RunningAverage()

    @property
    def sma_count(self) -> int:
        """States in the mean, beside the first."""
        return self.running_average.count

    def update_sma(self) -> None:
        """Call this after each update of the network."""
        self.global_iter += 1
        average, current = _averaged(self.network_sma), _averaged(self.network)
        if self.global_iter >= self.sma_start_iter:
            self.running_average.update(average, current)
        else:
            torch._foreach_copy_(list(average.values()), list(current.values()))


def _averaged(network: nn.Module) -> dict[str, Tensor]:
    return {name: value for name, value in network.state_dict().items() if "num_batches_tracked" not in name}

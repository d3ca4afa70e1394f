"""Running mean of named tensors, such as the weights of a network during training."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor


class RunningAverage:
    """Equally weighted mean of the states that a set of named tensors passes through.

    The averaged tensors belong to the caller; the object only holds a count. The rule is that of ERM++
    (Teterwak et al. 2023, arXiv 2304.01973).

    Attributes:
        count: number of states added to the initial one.
    """

    def __init__(self, count: int = 0) -> None:
        self.count = count

    @torch.no_grad()
    def update(self, average: Mapping[str, Tensor], current: Mapping[str, Tensor]) -> None:
        """Add a state: average <- (average * count + current) / (count + 1), with the new count.

        Args:
            average: the means by name, changed in place; no two of them may share memory. Before the first
                update, a copy of the initial state.
            current: the new state, with tensors of the same names and shapes. Integers and booleans are
                copied instead of averaged.
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
        """The count."""
        return {"count": self.count}

    def load_state_dict(self, state_dict: Mapping[str, Any]) -> None:
        """Restore the count."""
        self.count = int(state_dict["count"])

"""Exponential moving average of a dictionary of tensors."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from torch import Tensor


class MovingAverage:
    """Exponential moving average m = ema * m + (1 - ema) * data, with m = 0 at first.

    Args:
        ema: share of the past, below 1.
        oneminusema_correction: return m / (1 - ema), whose derivative by the newest data is 1.

    Attributes:
        ema_data: name -> m (1, N), detached.
    """

    def __init__(self, ema: float, oneminusema_correction: bool = True) -> None:
        self.ema = ema
        self.ema_data: dict[str, Tensor] = {}
        self._updates = 0
        self._oneminusema_correction = oneminusema_correction

    def update(self, dict_data: Mapping[str, Tensor]) -> dict[str, Tensor]:
        """The averages (1, N) with `dict_data` (tensors of N entries) in them, differentiable by it."""
        result = {}
        for name, data in dict_data.items():
            average = (1 - self.ema) * data.reshape(1, -1)
            if name in self.ema_data:
                # The past follows the data's device.
                average = average + self.ema * self.ema_data[name].to(average)
            self.ema_data[name] = average.detach()
            result[name] = average / (1 - self.ema) if self._oneminusema_correction else average
        self._updates += 1
        return result

    def state_dict(self) -> dict[str, Any]:
        """The averages and the number of updates."""
        return {"ema_data": self.ema_data, "updates": self._updates}

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Go on from there."""
        self.ema_data = dict(state_dict["ema_data"])
        self._updates = state_dict["updates"]

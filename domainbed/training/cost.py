"""What a run costs, as far as a few of its steps tell; see `cost_measurement`."""

from __future__ import annotations

import statistics
from collections.abc import Callable
from dataclasses import dataclass


@dataclass(frozen=True)
class Cost:
    """What was measured of one run.

    Attributes:
        start: seconds before the first update, without the imports.
        steps: seconds of each timed update, with the loading of its minibatches.
        record: seconds of one record, which evaluates.
        n_steps: updates of the whole run.
        n_records: records of the whole run.
        memory: largest memory of the process so far, in bytes.
    """

    start: float
    steps: list[float]
    record: float
    n_steps: int
    n_records: int
    memory: int

    def seconds(self, step: Callable[[list[float]], float] = statistics.median) -> float:
        """Seconds of the whole run, with this statistic of the timed updates for every update."""
        return self.start + self.n_steps * step(self.steps) + self.n_records * self.record

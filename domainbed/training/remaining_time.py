"""How long the rest of a run will take, from its own updates and evaluations."""

from __future__ import annotations

import time
from collections.abc import Callable
from datetime import datetime, timedelta

from domainbed.console import format_seconds

LEAST_UPDATES = 3
LEAST_SECONDS = 5.0
"""So many updates, in so many seconds, are measured; the first update of a run, which warms up, is not."""
WORTH_SAYING = 10.0
"""Shorter rests of a run, in seconds, are not estimated."""


class RemainingTime:
    """Measures a run, and says once when it will end: after its first evaluation and a few further updates.

    Args:
        n_steps: number of updates of the run.
        checkpoint_freq: number of updates from one evaluation to the next.
        clock: seconds since some moment.
    """

    def __init__(
        self, n_steps: int, checkpoint_freq: int, clock: Callable[[], float] = time.monotonic
    ) -> None:
        self._n_steps, self._checkpoint_freq, self._clock = n_steps, checkpoint_freq, clock
        self._first: tuple[int, float] | None = None  # updates and time after the first evaluation
        self._evaluations: list[float] = []
        self._given = False

    def evaluated(self, updates: int, seconds: float) -> None:
        """Note that the evaluation after so many updates has just ended, and took `seconds`."""
        self._evaluations.append(seconds)
        if self._first is None:
            self._first = updates, self._clock()

    def line(self, updates: int) -> str:
        """The expected end, right after an update; empty if it is too early, was given before, or is near.

        Args:
            updates: number of updates done.
        """
        if self._given or self._first is None or updates - self._first[0] < LEAST_UPDATES:
            return ""
        passed = self._clock() - self._first[1] - sum(self._evaluations[1:])
        if passed < LEAST_SECONDS:
            return ""
        self._given = True
        more, last = self._n_steps - updates, self._n_steps - 1
        # The one of the last update, if it is due, is still to come.
        evaluations = sum(
            step % self._checkpoint_freq == 0 or step == last for step in range(updates - 1, last + 1)
        )
        an_update = passed / (updates - self._first[0])
        rest = more * an_update + evaluations * sum(self._evaluations) / len(self._evaluations)
        if rest < WORTH_SAYING:
            return ""
        end = datetime.now() + timedelta(seconds=rest)
        return (
            f"Expected end: {end:%Y-%m-%d %H:%M}, in {format_seconds(rest)}, after {more:,} more updates and "
            f"{evaluations:,} evaluations."
        )

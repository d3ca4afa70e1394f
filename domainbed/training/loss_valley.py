"""The valley of the validation loss that SWAD averages over (Cha et al. 2021, arXiv 2102.08604)."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, NamedTuple


class Decision(NamedTuple):
    """Decision on the undecided checkpoints, by their positions: 0 is the oldest, the last one the newest.

    Attributes:
        include: those that count in the average from now on; one that is listed again counts once more.
        forget: number of oldest ones that cannot count any more.
        provisional: those that also count if the run ends here. Positions are those without forgotten ones.
    """

    include: tuple[int, ...] = ()
    forget: int = 0
    provisional: tuple[int, ...] = ()


class LossValley:
    """The checkpoints in the valley of the validation loss, found one at a time, each counted once.

    The valley starts at the first checkpoint whose loss is the minimum of itself and the following n_s - 1.
    The tolerance is (1 + r) times the mean of these n_s losses. The valley ends when the minimum of the last
    n_e losses exceeds the tolerance; as in the authors' code, it then stops at the last loss within the
    tolerance. The same holds if the run ends first.

    Args:
        n_s: number of losses that decide on the start.
        n_e: number of losses that decide on the end.
        r: tolerance, relative to the mean loss at the start.

    Attributes:
        start: step of the first checkpoint in the valley; None before it is known.
        end: step of the last checkpoint in the valley so far; None before the start is known.
        ended: whether the valley has ended. Later checkpoints then do not matter.
    """

    def __init__(self, n_s: int, n_e: int, r: float) -> None:
        self.n_s = n_s
        self.n_e = n_e
        self.r = r
        self.start: int | None = None
        self.end: int | None = None
        self.ended = False
        self._tolerance: float | None = None
        self._undecided: list[tuple[int, float]] = []  # step and loss

    def add(self, step: int, loss: float) -> Decision:
        """Decide which checkpoints count after the one at `step`."""
        self._undecided.append((step, loss))
        before = 0
        if self._tolerance is None:
            if loss < self._undecided[0][1]:
                # The valley cannot start at an earlier checkpoint: each has this loss among its next n_s - 1.
                before = len(self._undecided) - 1
                del self._undecided[:before]
            if len(self._undecided) < self.n_s:
                return Decision(forget=before)
            self._start_at(self._undecided)
        taken = self._take_until_last_tolerated()
        return Decision(tuple(range(before, before + taken)), before + taken)

    def _start_at(self, window: list[tuple[int, float]]) -> None:
        """Let the valley start at the first of the n_s checkpoints in `window`."""
        self.start = window[0][0]
        self._tolerance = (1 + self.r) * sum(loss for _, loss in window) / self.n_s

    def _take_until_last_tolerated(self) -> int:
        """Remove the undecided checkpoints up to the last loss within the tolerance; returns their number."""
        assert self._tolerance is not None
        take = 0
        for position, (step, loss) in enumerate(self._undecided):
            if loss <= self._tolerance:
                take, self.end = position + 1, step
            elif position + 1 - take == self.n_e:
                self.ended = True
                break
        del self._undecided[:take]
        return take

    def state_dict(self) -> dict[str, Any]:
        """State of the valley, without its arguments."""
        return {
            "start": self.start,
            "end": self.end,
            "over": self.ended,
            "tolerated": self._tolerance,
            "undecided": [list(checkpoint) for checkpoint in self._undecided],
        }

    def load_state_dict(self, state_dict: Mapping[str, Any]) -> None:
        """Restore from `state_dict`."""
        self.start, self.end = state_dict["start"], state_dict["end"]
        self.ended = state_dict["over"]
        self._tolerance = state_dict["tolerated"]
        self._undecided = [(step, loss) for step, loss in state_dict["undecided"]]


class PublicLossValley(LossValley):
    """The valley as the authors' public code counts its checkpoints, which published results have.

    Start, tolerance and end are those of `LossValley`. A queue holds the last n_e checkpoints. After the one
    at which the start became known, each new checkpoint counts the oldest of the queue, unless that is before
    the start. So if the run's first checkpoint is the start, it counts n_e - n_s times: it stays the oldest
    until the queue is full. If the run ends before the valley does, the oldest of the queue is dropped, and
    the others count up to the last loss within the tolerance; soon after the start, some of them are before
    it. The start is counted in no other way: with n_e <= n_s it is never the oldest, and does not count
    unless nothing else does. With n_e < n_s, the n_s - n_e checkpoints after it count at once.
    """

    def __init__(self, n_s: int, n_e: int, r: float) -> None:
        super().__init__(n_s, n_e, r)
        self._counts = False  # whether any checkpoint counts for good

    def add(self, step: int, loss: float) -> Decision:
        self._undecided.append((step, loss))
        if self._tolerance is not None:
            include = self._oldest_of_queue(self._tolerance)
        elif self._window_opens_valley():
            window = self._undecided[-self.n_s :]
            self._start_at(window)
            first = len(self._undecided) - self.n_s + 1
            include = tuple(range(first, first + max(0, self.n_s - self.n_e)))
        else:
            return Decision(forget=self._forget(self.n_s, self.n_e))
        if include:
            self._counts, self.end = True, self._undecided[include[-1]][0]
        if self.ended:
            return Decision(include)
        forget = self._forget(self.n_e, 0 if self._counts else self._age_of_start())
        return Decision(include, forget, self._if_the_run_ends_here())

    def _window_opens_valley(self) -> bool:
        losses = [loss for _, loss in self._undecided[-self.n_s :]]
        return len(losses) == self.n_s and losses[0] == min(losses)

    def _age_of_start(self) -> int:
        """Number of checkpoints from the start of the valley on."""
        return sum(step >= (self.start or 0) for step, _ in self._undecided)

    def _oldest_of_queue(self, tolerance: float) -> tuple[int, ...]:
        """The position to count after a new checkpoint. The valley ends if no loss is within `tolerance`."""
        oldest = max(0, len(self._undecided) - self.n_e)
        queue = self._undecided[oldest:]
        if self.start is None or queue[0][0] < self.start:
            return ()
        if min(loss for _, loss in queue) > tolerance:
            self.ended = True
            # The start stands in for the average where nothing else counts.
            return () if self._counts else (len(self._undecided) - self._age_of_start(),)
        return (oldest,)

    def _forget(self, *needed: int) -> int:
        """Keep as many of the newest checkpoints as the largest of `needed` says."""
        forget = max(0, len(self._undecided) - max(needed))
        del self._undecided[:forget]
        return forget

    def _if_the_run_ends_here(self) -> tuple[int, ...]:
        """Positions that count beside those that count for good if the run ends at the newest checkpoint."""
        assert self._tolerance is not None
        first = max(0, len(self._undecided) - self.n_e) + 1
        tolerated = [
            position
            for position, (_, loss) in enumerate(self._undecided)
            if position >= first and loss <= self._tolerance
        ]
        if tolerated:
            self.end = self._undecided[tolerated[-1]][0]
            return tuple(range(first, tolerated[-1] + 1))
        if self._counts:
            return ()
        self.end = self.start
        return (len(self._undecided) - self._age_of_start(),)

    def state_dict(self) -> dict[str, Any]:
        return {**super().state_dict(), "counts": self._counts}

    def load_state_dict(self, state_dict: Mapping[str, Any]) -> None:
        super().load_state_dict(state_dict)
        self._counts = state_dict["counts"]


COUNTINGS: Mapping[str, type[LossValley]] = {"public": PublicLossValley, "equal": LossValley}
"""The values of the hyper-parameter `swad_counting`."""

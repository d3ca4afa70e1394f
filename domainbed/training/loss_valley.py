"""SWAD's criterion: at which checkpoints the average begins and ends, from their validation losses alone."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, NamedTuple


class Verdict(NamedTuple):
    """What to do about the checkpoints that nothing has been decided on yet, oldest first.

    Attributes:
        drop: so many of them are not in the valley.
        take: so many of the next ones are.
    """

    drop: int
    take: int


class LossValley:
    """The valley of the validation loss (Cha et al. 2021, arXiv 2102.08604; surgery specification B.18).

    It starts at the first checkpoint whose loss is the least of itself and the n_s - 1 after it; tolerated
    are losses up to (1 + r) times the mean of those n_s. It ends when the least of the last n_e losses is
    above that. Then, and at the end of a run, what comes after the last tolerated loss is left out, as in
    the public code.

    Args:
        n_s: checkpoints that the start is judged by.
        n_e: checkpoints that the end is judged by.
        r: tolerance.

    Attributes:
        start: step of the valley's first checkpoint; None before it is known.
        end: step of the last checkpoint in the valley so far.
        over: whether the valley has ended; nothing changes any more then.
    """

    def __init__(self, n_s: int, n_e: int, r: float) -> None:
        self.n_s = n_s
        self.n_e = n_e
        self.r = r
        self.start: int | None = None
        self.end: int | None = None
        self.over = False
        self._tolerated: float | None = None
        self._undecided: list[tuple[int, float]] = []

    def see(self, step: int, loss: float) -> Verdict:
        """Judge the undecided checkpoints with the newest, at `step`, among them."""
        self._undecided.append((step, loss))
        drop = 0
        if self._tolerated is None:
            if loss < self._undecided[0][1]:
                # Nothing before it can be the start: this loss is within n_s of each.
                drop = len(self._undecided) - 1
                del self._undecided[:drop]
            if len(self._undecided) < self.n_s:
                return Verdict(drop, 0)
            self.start = self._undecided[0][0]
            self._tolerated = (1 + self.r) * sum(each for _, each in self._undecided) / self.n_s
        return Verdict(drop, self._take(self._tolerated))

    def _take(self, tolerated: float) -> int:
        """How many of the undecided are in the valley; they are decided then."""
        take = 0
        for position, (step, loss) in enumerate(self._undecided):
            if loss <= tolerated:
                take, self.end = position + 1, step
            elif position + 1 - take == self.n_e:
                self.over = True
                break
        del self._undecided[:take]
        return take

    def state_dict(self) -> dict[str, Any]:
        """All that later verdicts depend on, but for the settings."""
        return {
            "start": self.start,
            "end": self.end,
            "over": self.over,
            "tolerated": self._tolerated,
            "undecided": [list(each) for each in self._undecided],
        }

    def load_state_dict(self, state_dict: Mapping[str, Any]) -> None:
        """Go on where the object that gave `state_dict` was."""
        self.start, self.end, self.over = (state_dict[name] for name in ("start", "end", "over"))
        self._tolerated = state_dict["tolerated"]
        self._undecided = [(step, loss) for step, loss in state_dict["undecided"]]

"""SWAD: average the weights over the valley of the validation loss (Cha et al. 2021, arXiv 2102.08604)."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any, NamedTuple

from domainbed.algorithms.base import Algorithm
from domainbed.hparams import OPTIONS, Hparam, const
from domainbed.training.averaging import Averaging, State, StateMean, restored_afterwards, tensors_of

OPTIONS["swad_n_s"] = Hparam(
    3,
    const(3),
    "swad: checkpoints without a lower loss that open the valley",
    at_least=1,
    only_if=("weight_averaging", "swad"),
)
OPTIONS["swad_n_e"] = Hparam(
    6,
    const(6),
    "swad: consecutive checkpoints above the tolerance that end the valley",
    at_least=1,
    only_if=("weight_averaging", "swad"),
)
OPTIONS["swad_r"] = Hparam(
    0.3,
    const(0.3),
    "swad: tolerance, as a share of the valley's first losses (VLCS: 0.2)",
    at_least=0,
    only_if=("weight_averaging", "swad"),
)


class Decision(NamedTuple):
    """Decision on the undecided checkpoints, oldest first.

    Attributes:
        drop: number of checkpoints that are before the valley.
        take: number of checkpoints, after those, that are in the valley.
    """

    drop: int
    take: int


class LossValley:
    """The checkpoints in the valley of the validation loss (Cha et al. 2021), found one checkpoint at a time.

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
        """Decide which checkpoints are in the valley after the one at `step`."""
        self._undecided.append((step, loss))
        drop = 0
        if self._tolerance is None:
            if loss < self._undecided[0][1]:
                # The valley cannot start at an earlier checkpoint: each has this loss among its next n_s - 1.
                drop = len(self._undecided) - 1
                del self._undecided[:drop]
            if len(self._undecided) < self.n_s:
                return Decision(drop, take=0)
            self.start = self._undecided[0][0]
            self._tolerance = (1 + self.r) * sum(loss for _, loss in self._undecided) / self.n_s
        return Decision(drop, self._take_until_last_tolerated(self._tolerance))

    def _take_until_last_tolerated(self, tolerance: float) -> int:
        """Remove the undecided checkpoints up to the last loss within the tolerance; returns their number."""
        take = 0
        for position, (step, loss) in enumerate(self._undecided):
            if loss <= tolerance:
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


class SWAD(Averaging):
    """Stochastic Weight Averaging Densely (Cha et al. 2021, arXiv 2102.08604).

    The weights after every update are averaged. Each checkpoint stands for the mean over the updates since
    the previous one. As in the authors' code, the result is the unweighted mean of the checkpoints in the
    `LossValley`, whatever the number of updates of each. (The paper averages single updates, which is equal
    if checkpoints are equally far apart.) Before the valley is known, the current weights are used. Records
    have its first and last step as `swad_start` and `swad_end`.

    Needs memory for one copy of the parameters and buffers on the device and max(n_s, n_e) + 1 copies on the
    CPU, and evaluates the validation parts at each checkpoint.

    Args:
        algorithm: the algorithm whose weights are averaged.
        valley: chooses the checkpoints.
    """

    def __init__(self, algorithm: Algorithm, valley: LossValley) -> None:
        super().__init__(algorithm)
        self.valley = valley
        self._since_checkpoint = StateMean()
        self._undecided: list[State] = []  # means of the valley's undecided checkpoints, on the CPU
        self._mean = StateMean()

    def update(self) -> None:
        if not self.valley.ended:
            self._since_checkpoint.add(tensors_of(self.algorithm))

    def at_checkpoint(self, step: int, validation_loss: Callable[[int], float]) -> dict[str, float]:
        if not self.valley.ended:
            # Before anything else, because it raises if the run is asked to stop.
            with restored_afterwards(self.algorithm):
                loss = validation_loss(step)
            self._undecided.append({name: t.cpu() for name, t in self._since_checkpoint.tensors.items()})
            self._since_checkpoint = StateMean()
            self._apply(self.valley.add(step, loss))
        if self.valley.start is None or self.valley.end is None:
            return {}
        return {"swad_start": self.valley.start, "swad_end": self.valley.end}

    def _apply(self, decision: Decision) -> None:
        del self._undecided[: decision.drop]
        for mean in self._undecided[: decision.take]:
            self._mean.add(mean)
        del self._undecided[: decision.take]
        if self.valley.ended:
            self._undecided.clear()

    def averaged_weights(self) -> State:
        return self._mean.tensors

    def state_dict(self) -> dict[str, Any]:
        return {
            "valley": self.valley.state_dict(),
            "segment": self._since_checkpoint.state_dict(),
            "undecided": [dict(mean) for mean in self._undecided],
            "mean": self._mean.state_dict(),
        }

    def load_state_dict(self, state_dict: Mapping[str, Any]) -> None:
        self.valley.load_state_dict(state_dict["valley"])
        self._since_checkpoint.load_state_dict(state_dict["segment"], tensors_of(self.algorithm))
        self._undecided = [
            {name: tensor.cpu().clone() for name, tensor in mean.items()} for mean in state_dict["undecided"]
        ]
        self._mean.load_state_dict(state_dict["mean"], like={})

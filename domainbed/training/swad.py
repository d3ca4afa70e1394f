"""SWAD: average the weights over the valley of the validation loss (Cha et al. 2021, arXiv 2102.08604)."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

from domainbed.algorithms.base import Algorithm
from domainbed.hparams import OPTIONS, Hparam, const
from domainbed.training.averaging import Averaging, State, StateMean, restored_afterwards, tensors_of
from domainbed.training.loss_valley import COUNTINGS, Decision, LossValley

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
OPTIONS["swad_counting"] = Hparam(
    "public",
    const("public"),
    "swad: how often a checkpoint of the valley counts: public (as in the authors' code) or equal (once)",
    choices=tuple(COUNTINGS),
    value_before="equal",
    only_if=("weight_averaging", "swad"),
)


class SWAD(Averaging):
    """Stochastic Weight Averaging Densely (Cha et al. 2021, arXiv 2102.08604).

    The weights after every update are averaged. Each checkpoint stands for the mean over the updates since
    the previous one. The result is the mean of the checkpoints that the valley counts, whatever the number of
    updates of each. With `LossValley` each counts once, which is the paper's mean over single updates if
    checkpoints are equally far apart. `PublicLossValley` counts as the authors' code does. Before the valley
    is known, the current weights are used. Records have its first and last step as `swad_start` and
    `swad_end`.

    Needs memory for one copy of the parameters and buffers on the device and max(n_s, n_e) + 3 copies on the
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
        self._provisional: list[int] = []  # positions in `_undecided` that count if the run ends now
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
        for position in decision.include:
            self._mean.add(self._undecided[position])
        del self._undecided[: decision.forget]
        self._provisional = list(decision.provisional)
        if self.valley.ended:
            self._undecided.clear()

    def averaged_weights(self) -> State:
        if not self._provisional:
            return self._mean.tensors
        mean = StateMean()
        mean.load_state_dict(self._mean.state_dict(), like={})
        for position in self._provisional:
            mean.add(self._undecided[position])
        return mean.tensors

    def state_dict(self) -> dict[str, Any]:
        return {
            "valley": self.valley.state_dict(),
            "segment": self._since_checkpoint.state_dict(),
            "undecided": [dict(mean) for mean in self._undecided],
            "provisional": list(self._provisional),
            "mean": self._mean.state_dict(),
        }

    def load_state_dict(self, state_dict: Mapping[str, Any]) -> None:
        self.valley.load_state_dict(state_dict["valley"])
        self._since_checkpoint.load_state_dict(state_dict["segment"], tensors_of(self.algorithm))
        self._undecided = [
            {name: tensor.cpu().clone() for name, tensor in mean.items()} for mean in state_dict["undecided"]
        ]
        self._provisional = list(state_dict.get("provisional", []))  # absent in those of 0.1
        self._mean.load_state_dict(state_dict["mean"], like={})

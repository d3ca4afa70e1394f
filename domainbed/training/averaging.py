"""Averages of weights over a run, for any algorithm: which weights are evaluated and saved."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator, Mapping
from typing import Any

import torch
from torch import Tensor

from domainbed.algorithms.base import Algorithm
from domainbed.algorithms.running_average import RunningAverage
from domainbed.errors import UsageError
from domainbed.hparams import OPTIONS, Hparam, Value, const, option
from domainbed.training.loss_valley import LossValley

OPTIONS["weight_averaging"] = Hparam(
    "none",
    const("none"),
    "which weights are evaluated and saved: none: the last; sma or swad: an average",
    choices=("none", "sma", "swad"),
)
OPTIONS["sma_start"] = Hparam(
    600,
    const(600),
    "sma: first update that is averaged, or the middle of the run if that is earlier",
    at_least=1,
)
OPTIONS["swad_n_s"] = Hparam(
    3, const(3), "swad: checkpoints without a lower loss that open the valley", at_least=1
)
OPTIONS["swad_n_e"] = Hparam(
    6, const(6), "swad: consecutive checkpoints above the tolerance that end the valley", at_least=1
)
OPTIONS["swad_r"] = Hparam(
    0.3, const(0.3), "swad: tolerance, as a share of the valley's first losses (VLCS: 0.2)", at_least=0
)

State = dict[str, Tensor]
"""Name -> tensor: all parameters and buffers, each once however many names it has."""


class Averaging:
    """None: what is evaluated and saved are the current weights. The base of those that average.

    Args:
        algorithm: whose weights; training goes on with them as if there were no average.
    """

    def __init__(self, algorithm: Algorithm) -> None:
        self.algorithm = algorithm

    def add(self) -> None:
        """Call this after each update."""

    def checkpoint(self, step: int, validation_loss: Callable[[int], float]) -> dict[str, float]:
        """Call this at each checkpoint, before anything is evaluated.

        Args:
            step: of the checkpoint.
            validation_loss: gives the current model's; called only where it is needed. If it raises,
                nothing has changed.

        Returns: what to add to the record.
        """
        return {}

    def average(self) -> State:
        """The weights to hand out; empty for the current ones."""
        return {}

    @contextlib.contextmanager
    def handed_out(self) -> Iterator[None]:
        """Inside, the algorithm is the model that the run would hand out if it ended now.

        Afterwards its parameters and buffers are as before, to the bit. Needs memory for a copy of them.
        """
        average = self.average()
        if not average:
            yield
            return
        with _as_it_was(self.algorithm):
            _write(self.algorithm, average)
            yield

    def state_dict(self) -> dict[str, Any]:
        """All of its own state, in plain containers; nothing is copied."""
        return {}

    def load_state_dict(self, state_dict: Mapping[str, Any]) -> None:
        """Go on where the object that gave `state_dict` was; what it holds is copied."""


class SimpleAverage(Averaging):
    """The mean of the weights after each update, from one on (Teterwak et al. 2023, arXiv 2304.01973).

    As in ERM++, the weights before the update that it starts with count too. Until then the current weights
    are handed out. Needs memory for one copy of the parameters and buffers, and a pass over them an update.

    Args:
        algorithm: whose weights.
        start: number of the first update, counted from 1.
    """

    def __init__(self, algorithm: Algorithm, start: int) -> None:
        super().__init__(algorithm)
        self.start = start
        self._updates = 0
        self._mean = _Mean()

    def add(self) -> None:
        self._updates += 1
        if self._updates >= self.start - 1:
            self._mean.add(_state(self.algorithm))

    def average(self) -> State:
        return self._mean.tensors

    def state_dict(self) -> dict[str, Any]:
        return {"updates": self._updates, "mean": self._mean.state_dict()}

    def load_state_dict(self, state_dict: Mapping[str, Any]) -> None:
        self._updates = state_dict["updates"]
        self._mean.load_state_dict(state_dict["mean"], _state(self.algorithm))


class SWAD(Averaging):
    """Stochastic weight averaging densely (Cha et al. 2021, arXiv 2102.08604; surgery specification B.18).

    The weights after every update are averaged; a checkpoint's mean is over the updates since the checkpoint
    before. Of the checkpoints in the `LossValley` these means are averaged with equal weights, as in the
    public code, however many updates each stands for. (The paper averages single updates; that is the same
    where checkpoints are equally far apart.) Before the valley is known the current weights are handed out,
    in it the average up to its last checkpoint so far, and that for good once it is over. Records say as
    `swad_start` and `swad_end` which checkpoints the average reaches from and to.

    Needs memory for one copy of the parameters and buffers on the device, a pass over them an update, on the
    CPU up to max(N_s, N_e) + 1 copies more, and the loss of the validation parts at each checkpoint.
    """

    def __init__(self, algorithm: Algorithm, valley: LossValley) -> None:
        super().__init__(algorithm)
        self.valley = valley
        self._segment = _Mean()
        self._undecided: list[State] = []
        self._mean = _Mean()

    def add(self) -> None:
        if not self.valley.over:
            self._segment.add(_state(self.algorithm))

    def checkpoint(self, step: int, validation_loss: Callable[[int], float]) -> dict[str, float]:
        if not self.valley.over:
            # First, as it may be broken off.
            with _as_it_was(self.algorithm):
                loss = validation_loss(step)
            self._undecided.append({name: mean.cpu() for name, mean in self._segment.tensors.items()})
            self._segment = _Mean()
            self._judge(*self.valley.see(step, loss))
        if self.valley.start is None or self.valley.end is None:
            return {}
        return {"swad_start": self.valley.start, "swad_end": self.valley.end}

    def _judge(self, drop: int, take: int) -> None:
        del self._undecided[:drop]
        for segment in self._undecided[:take]:
            self._mean.add(segment)
        del self._undecided[:take]
        if self.valley.over:
            self._undecided.clear()

    def average(self) -> State:
        return self._mean.tensors

    def state_dict(self) -> dict[str, Any]:
        return {
            "valley": self.valley.state_dict(),
            "segment": self._segment.state_dict(),
            "undecided": [dict(segment) for segment in self._undecided],
            "mean": self._mean.state_dict(),
        }

    def load_state_dict(self, state_dict: Mapping[str, Any]) -> None:
        self.valley.load_state_dict(state_dict["valley"])
        self._segment.load_state_dict(state_dict["segment"], _state(self.algorithm))
        self._undecided = [
            {name: tensor.cpu().clone() for name, tensor in segment.items()}
            for segment in state_dict["undecided"]
        ]
        self._mean.load_state_dict(state_dict["mean"], {})


def make_averaging(
    algorithm: Algorithm, hparams: Mapping[str, Value], n_steps: int, has_validation: bool
) -> Averaging:
    """The averaging that a run asks for by hyper-parameter `weight_averaging`.

    Args:
        algorithm: whose weights.
        hparams: the run's.
        n_steps: updates of the run; a simple average starts in the middle of a short one.
        has_validation: whether every source environment has a validation part.

    Raises: UsageError for a value that can't be used.
    """
    kind = option(hparams, "weight_averaging")
    if kind == "sma":
        start = int(option(hparams, "sma_start"))
        return SimpleAverage(algorithm, min(start, max(1, n_steps // 2)))
    if kind == "swad":
        if not has_validation:
            raise UsageError(
                "weight_averaging swad follows the loss on the source environments' validation parts, and "
                "there is one without images; raise --holdout_fraction, or choose sma"
            )
        n_s, n_e = (int(option(hparams, name)) for name in ("swad_n_s", "swad_n_e"))
        return SWAD(algorithm, LossValley(n_s, n_e, float(option(hparams, "swad_r"))))
    return Averaging(algorithm)


class _Mean:
    """Mean of states: floating-point tensors are averaged, others are those of the last state.

    So is a tensor that has appeared or changed its shape since the state before.
    """

    def __init__(self) -> None:
        self.tensors: State = {}
        self._rule = RunningAverage()

    def add(self, state: Mapping[str, Tensor]) -> None:
        """Take one more state in; it is not kept."""
        fresh = not self.tensors
        for name in self.tensors.keys() - state.keys():
            del self.tensors[name]
        for name, tensor in state.items():
            if name not in self.tensors or self.tensors[name].shape != tensor.shape:
                self.tensors[name] = tensor.clone()
        if not fresh:
            self._rule.update(self.tensors, state)

    def state_dict(self) -> dict[str, Any]:
        """The mean and how many states it is of."""
        return {"tensors": dict(self.tensors), "rule": self._rule.state_dict()}

    def load_state_dict(self, state_dict: Mapping[str, Any], like: Mapping[str, Tensor]) -> None:
        """Take copies of a mean's tensors, each to where `like` has the tensor of its name."""
        self.tensors = {
            name: tensor.to(like.get(name, tensor).device, copy=True)
            for name, tensor in state_dict["tensors"].items()
        }
        self._rule.load_state_dict(state_dict["rule"])


def _state(algorithm: Algorithm) -> State:
    """The algorithm's own tensors: they share memory with it."""
    named = {**dict(algorithm.named_parameters()), **dict(algorithm.named_buffers())}
    return {name: tensor.detach() for name, tensor in named.items()}


@torch.no_grad()
def _write(algorithm: Algorithm, state: State) -> None:
    """Copy a state into the algorithm, as far as it has tensors of these names and shapes."""
    for name, tensor in _state(algorithm).items():
        if name in state and state[name].shape == tensor.shape:
            tensor.copy_(state[name])


@contextlib.contextmanager
def _as_it_was(algorithm: Algorithm) -> Iterator[None]:
    """Put the algorithm's parameters and buffers back at the end, to the bit."""
    before = {name: tensor.clone() for name, tensor in _state(algorithm).items()}
    try:
        yield
    finally:
        _write(algorithm, before)

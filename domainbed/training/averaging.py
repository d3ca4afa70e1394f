"""Weight averaging for any algorithm: which weights a run evaluates and saves."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator, Mapping
from typing import Any

import torch
from torch import Tensor

from domainbed.algorithms.base import Algorithm
from domainbed.algorithms.running_average import RunningAverage
from domainbed.hparams import OPTIONS, Hparam, const
from domainbed.networks.stages import changing_buffers

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
    only_if=("weight_averaging", "sma"),
)

State = dict[str, Tensor]
"""Name -> tensor of every parameter and buffer that training can change. A tensor with several names appears
once."""


class Averaging:
    """No averaging: the current weights are evaluated and saved. Base class of the averages.

    Training always continues with the current weights.

    Args:
        algorithm: the algorithm whose weights are averaged.
    """

    def __init__(self, algorithm: Algorithm) -> None:
        self.algorithm = algorithm

    def update(self) -> None:
        """Take the current weights into account. Call it after each update of the algorithm."""

    def at_checkpoint(self, step: int, validation_loss: Callable[[int], float]) -> dict[str, float]:
        """Update the average at a checkpoint. Call it before the checkpoint is evaluated.

        Args:
            step: step of the checkpoint.
            validation_loss: returns the loss of the current weights, given the step. Called only if it is
                needed. If it raises, nothing has changed.

        Returns: entries to add to the record.
        """
        return {}

    def averaged_weights(self) -> State:
        """The averaged weights; empty while these are the current weights."""
        return {}

    @contextlib.contextmanager
    def applied(self) -> Iterator[None]:
        """Inside the context, the algorithm has the averaged weights.

        Afterwards its parameters and buffers are exactly as before. Needs memory for one copy of them.
        """
        averaged = self.averaged_weights()
        if not averaged:
            yield
            return
        with restored_afterwards(self.algorithm):
            _copy_into(self.algorithm, averaged)
            yield

    def state_dict(self) -> dict[str, Any]:
        """State of the average, in plain containers. Tensors are not copied."""
        return {}

    def load_state_dict(self, state_dict: Mapping[str, Any]) -> None:
        """Restore from `state_dict`. Tensors are copied."""


class SimpleAverage(Averaging):
    """Mean of the weights after each update from number `start` on.

    It is the moving average of EoA (Arpit et al. 2022, arXiv 2110.10832, section 3.1) and ERM++ (Teterwak et
    al. 2023, arXiv 2304.01973), which includes the weights before the first of these updates: with `start` 1
    the initial ones. Earlier in the run the current weights are used. Needs memory for one copy of the
    parameters and buffers.

    Args:
        algorithm: the algorithm whose weights are averaged.
        start: number of the first averaged update, counted from 1.
    """

    def __init__(self, algorithm: Algorithm, start: int) -> None:
        super().__init__(algorithm)
        self.start = start
        self._updates = 0
        self._mean = StateMean()
        if start == 1:
            self._mean.add(tensors_of(algorithm))

    def update(self) -> None:
        self._updates += 1
        if self._updates >= self.start - 1:
            self._mean.add(tensors_of(self.algorithm))

    def averaged_weights(self) -> State:
        return self._mean.tensors

    def state_dict(self) -> dict[str, Any]:
        return {"updates": self._updates, "mean": self._mean.state_dict()}

    def load_state_dict(self, state_dict: Mapping[str, Any]) -> None:
        self._updates = state_dict["updates"]
        self._mean.load_state_dict(state_dict["mean"], tensors_of(self.algorithm))


class StateMean:
    """Running mean of states. Tensors that are not floating-point have the value of the last state.

    A tensor that appears, or changes its shape, starts a mean of its own from there.

    Attributes:
        tensors: the mean; empty before the first state.
    """

    def __init__(self) -> None:
        self.tensors: State = {}
        self._rule = RunningAverage()

    def add(self, state: Mapping[str, Tensor]) -> None:
        """Include one more state. Its tensors are not kept."""
        is_first = not self.tensors
        for name in self.tensors.keys() - state.keys():
            del self.tensors[name]
        for name, tensor in state.items():
            if name not in self.tensors or self.tensors[name].shape != tensor.shape:
                self.tensors[name] = tensor.clone()
        if not is_first:
            self._rule.update(self.tensors, state)

    def state_dict(self) -> dict[str, Any]:
        """The mean and the number of states in it."""
        return {"tensors": dict(self.tensors), "rule": self._rule.state_dict()}

    def load_state_dict(self, state_dict: Mapping[str, Any], like: Mapping[str, Tensor]) -> None:
        """Restore from `state_dict`. Each tensor is copied to the device of its namesake in `like`."""
        self.tensors = {
            name: tensor.to(like.get(name, tensor).device, copy=True)
            for name, tensor in state_dict["tensors"].items()
        }
        self._rule.load_state_dict(state_dict["rule"])


def tensors_of(algorithm: Algorithm) -> State:
    """All parameters and buffers of the algorithm except frozen ones, which share memory with it."""
    named = {**dict(algorithm.named_parameters()), **changing_buffers(algorithm)}
    return {name: tensor.detach() for name, tensor in named.items()}


@contextlib.contextmanager
def restored_afterwards(algorithm: Algorithm) -> Iterator[None]:
    """Restore the algorithm's parameters and buffers exactly when the context ends."""
    before = {name: tensor.clone() for name, tensor in tensors_of(algorithm).items()}
    try:
        yield
    finally:
        _copy_into(algorithm, before)


@torch.no_grad()
def _copy_into(algorithm: Algorithm, state: State) -> None:
    """Copy a state into the algorithm's tensors of the same names and shapes."""
    for name, tensor in tensors_of(algorithm).items():
        if name in state and state[name].shape == tensor.shape:
            tensor.copy_(state[name])

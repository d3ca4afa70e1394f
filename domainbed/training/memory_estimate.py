"""What an update of a run takes of memory, estimated before the first one.

Two parts: tensors of the size of all parameters (weights, gradient, the optimizer's moments, and what the
catalogue says of the method), and what one forward pass of the featurizer keeps for its backward pass.
"""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from domainbed.accelerators import free_bytes, reserved_bytes
from domainbed.algorithms.base import Algorithm
from domainbed.algorithms.environment_gradients import ComponentwiseMethod, EnvironmentGradients, GramMethod
from domainbed.console import format_bytes
from domainbed.memory import address_space_left, machine_memory
from domainbed.networks.base import FeaturizerModule
from domainbed.training.minibatches import load_minibatch
from domainbed.training.run import Run

_OF_ERM = 4
"""Tensors of the size of all parameters that ERM has: weights, gradient, and Adam's two moments."""
_USABLE = 0.8
"""Share of the available memory that an update should take: kernels and fragmentation take some, too."""
_SAMPLES = 2
"""Number of samples in the forward pass that is measured."""


@dataclass(frozen=True)
class MemoryEstimate:
    """What an update takes at its largest, in bytes.

    Attributes:
        of_parameters: tensors of the size of all parameters.
        of_samples: what one more sample in each minibatch adds.
        minibatches: number of minibatches of an update.
        batch_size: B, the samples of the largest one.
    """

    of_parameters: int
    of_samples: float
    minibatches: int
    batch_size: int

    @property
    def total(self) -> float:
        """Bytes of an update."""
        return self.of_parameters + self.of_samples * self.batch_size

    def largest_batch_size(self, available: float) -> int:
        """The largest B whose update takes at most 80 % of `available` bytes; 0 if there is none."""
        return max(0, int((_USABLE * available - self.of_parameters) / self.of_samples))

    def line(self, available: float) -> str:
        """What `train` prints before the first update.

        Args:
            available: bytes; 0: not known.
        """
        text = (
            f"Memory of an update, estimated: {format_bytes(self.total)}, of which "
            f"{format_bytes(self.of_parameters)} for weights, gradients and optimizer, the rest for "
            f"{self.minibatches} x {self.batch_size} samples"
        )
        if not available:
            return f"{text}."
        smaller = f"; {_fitting(self.largest_batch_size(available))}" if self.total > available else ""
        return f"{text}; available: {format_bytes(available)}{smaller}."

    def remedy(self, available: float) -> str:
        """What to change after an update ran out of memory, as a clause.

        Args:
            available: bytes; 0: not known.
        """
        largest = self.largest_batch_size(available) if available else self.batch_size
        if largest < self.batch_size:
            needed = (
                f"an update takes {format_bytes(self.total)}, and {format_bytes(available)} were available"
            )
            return f"{needed}; {_fitting(largest)}"
        # The method, or a kernel, takes more than the estimate knows of.
        return (
            f"try batch_size {self.batch_size // 2}" if self.batch_size > 1 else "choose a smaller featurizer"
        )


def _fitting(batch_size: int) -> str:
    if batch_size < 1:
        return "by this estimate, no batch_size fits: choose a smaller featurizer, such as resnet18"
    return f"by this estimate, batch_size {batch_size} fits"


def estimate_memory(run: Run) -> MemoryEstimate | None:
    """Estimate what an update of the run takes; None where that cannot be told.

    Changes neither weights nor random numbers.
    """
    if run.config.compile or not run.algorithm.TRAINS:  # compiling for another batch size takes a minute
        return None
    featurizers = [each for each in run.algorithm.modules() if isinstance(each, FeaturizerModule)]
    try:
        x = _some_samples(run)
        of_input, of_sample = x.nbytes / len(x), max(_kept_bytes(x, each) / len(x) for each in featurizers)
    except Exception:  # without a featurizer, or if it cannot compute, of which the first update says why
        return None
    samplers = [*run.minibatches.samplers, *(run.unlabeled.samplers if run.unlabeled is not None else ())]
    passes, extra = _passes_and_tensors(run.algorithm, len(run.minibatches.samplers), len(samplers))
    return MemoryEstimate(
        of_parameters=int((_OF_ERM + extra) * max(map(_trained_bytes, featurizers))),
        of_samples=of_sample * passes + of_input * len(samplers),
        minibatches=len(samplers),
        batch_size=max(sampler.batch_size for sampler in samplers),
    )


def available_bytes(device: torch.device) -> float:
    """Bytes of the device, or of this machine, that the run may take; 0 where nothing tells."""
    if device.type != "cpu":
        return free_bytes(device) + reserved_bytes(device)
    found = [machine_memory()["available"], address_space_left()]
    return min((float(each) for each in found if each is not None), default=0.0)


def _passes_and_tensors(algorithm: Algorithm, k: int, minibatches: int) -> tuple[int, float]:
    """Number of minibatches in one pass, and tensors of the size of all parameters beyond ERM's.

    Args:
        algorithm: the algorithm.
        k: number of source environments.
        minibatches: number of minibatches of an update, unlabeled ones among them.
    """
    extra = 0.0 if algorithm.FACTS is None else algorithm.FACTS.memory_for(k)
    if not isinstance(algorithm, EnvironmentGradients):
        return minibatches, extra
    parameters = algorithm.trained_parameters()
    if algorithm.process_group.world_size > 1 or not algorithm.engine.wants_joint_pass(parameters):
        return 1, extra
    is_streamed = type(algorithm).combined in (ComponentwiseMethod.combined, GramMethod.combined)
    return minibatches, 0.0 if is_streamed else extra


def _trained_bytes(featurizer: FeaturizerModule) -> int:
    return sum(each.nbytes for each in featurizer.parameters() if each.requires_grad)


def _some_samples(run: Run) -> Tensor:
    part = run.minibatches.parts[0]
    x, _ = load_minibatch(part, np.arange(min(_SAMPLES, len(part))), (0,))
    return x.to(run.device)


def _kept_bytes(x: Tensor, featurizer: FeaturizerModule) -> int:
    """Bytes that a forward pass keeps, its inputs `x` among them, and of the largest one's gradient."""
    featurizer.eval()  # so that batch norms keep their statistics
    with torch.enable_grad(), torch.random.fork_rng(devices=[]), _kept_by_autograd() as kept:
        output = featurizer(x)
    for each in (*featurizer.parameters(), *featurizer.buffers()):
        kept.pop(each.untyped_storage().data_ptr(), None)
    kept[x.untyped_storage().data_ptr()] = x.nbytes
    del output  # until here, it keeps the tensors, so that no address was used twice
    return sum(kept.values()) + max(kept.values())


@contextlib.contextmanager
def _kept_by_autograd() -> Iterator[dict[int, int]]:
    """Bytes of the memory that autograd keeps for a backward pass, by address."""
    kept: dict[int, int] = {}

    def keep(tensor: Tensor) -> Tensor:
        kept[tensor.untyped_storage().data_ptr()] = tensor.untyped_storage().nbytes()
        return tensor

    with torch.autograd.graph.saved_tensors_hooks(keep, lambda tensor: tensor):
        yield kept

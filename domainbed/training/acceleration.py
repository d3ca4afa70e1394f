"""Options that make a run faster and change its numbers by rounding alone.

They act on featurizers, which do nearly all of the arithmetic: in bfloat16, with the channels of images
innermost in memory, or compiled. Classifiers, losses, gradients' signs and products, weights and optimizers
stay in float32. Every way into a featurizer is covered, evaluation among them, and copies of one behave as it
does (but are not compiled); no parameter changes its name or shape.
"""

from __future__ import annotations

import functools
from collections.abc import Callable
from types import MethodType
from typing import Any

import torch
from torch import Tensor, nn, optim
from torch.optim.optimizer import register_optimizer_step_pre_hook

from domainbed.algorithms.base import Algorithm
from domainbed.algorithms.precision import at_least_float32
from domainbed.errors import UsageError
from domainbed.gradients.compiler import lacks_for_compilation
from domainbed.networks.backbones import with_channels_innermost
from domainbed.networks.base import FeaturizerModule
from domainbed.training.config import TrainConfig

BACKEND = "inductor"
"""Of torch.compile."""

Forward = Callable[[nn.Module, Tensor], Tensor]
"""A featurizer's `forward` as a function of the featurizer and its inputs."""


def check_device(config: TrainConfig, device: torch.device) -> None:
    """Raise UsageError for an option that does nothing on `device`, or lacks what it needs there."""
    if config.precision == "tf32" and not _has_tf32(device):
        raise UsageError(
            "--precision tf32 is for NVIDIA GPUs of compute capability 8.0 and above, and this run is on "
            f"{device}; leave it out, or give bf16"
        )
    lack = lacks_for_compilation(device.type) if config.compile else None
    if lack is not None:
        raise UsageError(f"--compile {lack}, or leave out --compile")


def accelerate(algorithm: Algorithm, config: TrainConfig) -> None:
    """Apply the run's options to `algorithm`, which is on its device, and to this process.

    Raises: UsageError for an option that it can't take.
    """
    # By torch's own defaults the convolutions of fp32, too, would be TF32.
    torch.backends.cuda.matmul.allow_tf32 = torch.backends.cudnn.allow_tf32 = config.precision == "tf32"
    options = {
        "--precision bf16": config.precision == "bf16",
        "--channels_last": config.channels_last,
        "--compile": config.compile,
    }
    given = [option for option, wanted in options.items() if wanted]
    featurizers = [module for module in algorithm.modules() if isinstance(module, FeaturizerModule)]
    if given and not featurizers:
        raise UsageError(f"{given[0]} acts on a featurizer, and {config.algorithm} has none: leave it out")
    if config.channels_last:
        _lay_out(algorithm, config)
    for featurizer in featurizers:
        if config.channels_last:
            _wrap(featurizer, _on_channels_last)
        if config.precision == "bf16":
            _wrap(featurizer, _in_bfloat16)
        if config.compile:
            # In place, so that parameters keep their names; masks of dropout are those of the plain path.
            featurizer.compile(backend=BACKEND, options={"fallback_random": True})


def _lay_out(algorithm: Algorithm, config: TrainConfig) -> None:
    """Store convolutions' weights with channels innermost."""
    if not any(parameter.dim() == 4 for parameter in algorithm.parameters()):
        raise UsageError(
            f"--channels_last is for convolutions over images, and the featurizer for {config.dataset} has "
            "none: leave it out"
        )
    algorithm.to(memory_format=torch.channels_last)
    _keep_gradients_in_layout()


def _wrap(featurizer: FeaturizerModule, wrapper: Callable[[Forward], Forward]) -> None:
    # A bound method: copies of the featurizer have one that is bound to themselves.
    forward: Any = featurizer.forward
    featurizer.forward = MethodType(wrapper(forward.__func__), featurizer)


def _on_channels_last(forward: Forward) -> Forward:
    def on_channels_last(self: nn.Module, x: Tensor) -> Tensor:
        return forward(self, with_channels_innermost(x))

    return on_channels_last


def _in_bfloat16(forward: Forward) -> Forward:
    def in_bfloat16(self: nn.Module, x: Tensor) -> Tensor:
        # Its cache of rounded weights would not notice that an update changes them.
        with torch.autocast(x.device.type, dtype=torch.bfloat16, cache_enabled=False):
            return at_least_float32(forward(self, x))

    return in_bfloat16


@functools.cache
def _keep_gradients_in_layout() -> None:
    """From now on, let optimizers of this process see gradients in their parameters' memory format.

    A fused optimizer walks over both in the order of memory, and one that was assigned, not accumulated by
    autograd, may have another.
    """
    register_optimizer_step_pre_hook(_lay_out_gradients)


def _lay_out_gradients(optimizer: optim.Optimizer, *_: object) -> None:
    for group in optimizer.param_groups:
        for parameter in group["params"]:
            if parameter.grad is not None and parameter.dim() == 4:
                contiguous = parameter.is_contiguous()
                layout = torch.contiguous_format if contiguous else torch.channels_last
                parameter.grad = parameter.grad.contiguous(memory_format=layout)


def _has_tf32(device: torch.device) -> bool:
    return device.type == "cuda" and torch.cuda.get_device_capability(device) >= (8, 0)

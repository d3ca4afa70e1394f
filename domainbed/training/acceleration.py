"""Options that make a run faster. They change its numbers only by rounding.

They apply to featurizers, which do nearly all of the arithmetic: bfloat16, channels-last memory format, and
compilation. Classifiers, losses, gradient surgery, weights and optimizers stay in float32. The options apply
to training and evaluation. Copies of a featurizer have them too, except compilation. Names and shapes of
parameters do not change.
"""

from __future__ import annotations

import contextlib
import functools
from collections.abc import Callable, Iterator
from types import MethodType
from typing import Any

import torch
from torch import Tensor, nn, optim
from torch.optim.optimizer import register_optimizer_step_pre_hook

from domainbed.algorithms.base import Algorithm
from domainbed.algorithms.precision import at_least_float32
from domainbed.errors import UsageError
from domainbed.gradients.compilation import missing_for_compilation
from domainbed.networks.backbones import with_channels_innermost
from domainbed.networks.base import FeaturizerModule
from domainbed.training.config import TrainConfig

BACKEND = "inductor"
"""Backend of torch.compile."""

Forward = Callable[[nn.Module, Tensor], Tensor]
"""An unbound `forward`: a function of the featurizer and its inputs."""


def check_device(config: TrainConfig, device: torch.device) -> None:
    """Check that the run's options work on `device`; raises UsageError if one does not."""
    if config.precision == "tf32" and not _has_tf32(device):
        raise UsageError(
            f"--precision tf32 needs an NVIDIA GPU of compute capability 8.0 or above, and this run is on "
            f"{device}; leave it out, or use bf16"
        )
    lack = missing_for_compilation(device.type) if config.compile else None
    if lack is not None:
        raise UsageError(f"--compile {lack}, or leave out --compile")


def accelerate(algorithm: Algorithm, config: TrainConfig) -> None:
    """Apply the run's options to this process and to `algorithm`, which must be on its device already.

    Raises: UsageError if the algorithm cannot use an option.
    """
    # torch's default allows TF32 in convolutions, also for fp32.
    torch.backends.cuda.matmul.allow_tf32 = torch.backends.cudnn.allow_tf32 = config.precision == "tf32"
    options = {
        "--precision bf16": config.precision == "bf16",
        "--channels_last": config.channels_last,
        "--compile": config.compile,
    }
    enabled = [option for option, is_enabled in options.items() if is_enabled]
    featurizers = _featurizers(algorithm)
    if enabled and not featurizers:
        raise UsageError(f"{enabled[0]} needs a featurizer, and {config.algorithm} has none; leave it out")
    if config.channels_last:
        _convert_to_channels_last(algorithm, config)
    for featurizer in featurizers:
        if config.channels_last:
            _wrap(featurizer, _on_channels_last)
    if config.precision == "bf16":
        compute_in_bfloat16(algorithm)
    for featurizer in featurizers:
        if config.compile:
            # In place, so that parameters keep their names. With fallback_random, dropout masks are those of
            # the uncompiled network.
            featurizer.compile(backend=BACKEND, options={"fallback_random": True})


def compute_in_bfloat16(algorithm: Algorithm) -> None:
    """From now on, compute the features of `algorithm` in bfloat16, by autocast."""
    for featurizer in _featurizers(algorithm):
        _wrap(featurizer, _in_bfloat16)


@contextlib.contextmanager
def unaccelerated(algorithm: Algorithm) -> Iterator[None]:
    """Within it, `algorithm` computes in float32, with images in the usual memory format.

    For measurements that need the precision, or `torch.func`, which does not work under autocast. Not for a
    compiled featurizer.
    """
    wrapped = [featurizer for featurizer in _featurizers(algorithm) if "forward" in vars(featurizer)]
    forwards = [vars(featurizer).pop("forward") for featurizer in wrapped]
    has_tf32 = torch.backends.cudnn.allow_tf32
    torch.backends.cuda.matmul.allow_tf32 = torch.backends.cudnn.allow_tf32 = False
    try:
        yield
    finally:
        torch.backends.cuda.matmul.allow_tf32 = torch.backends.cudnn.allow_tf32 = has_tf32
        for featurizer, forward in zip(wrapped, forwards, strict=True):
            featurizer.forward = forward


def _featurizers(algorithm: Algorithm) -> list[FeaturizerModule]:
    return [module for module in algorithm.modules() if isinstance(module, FeaturizerModule)]


def _convert_to_channels_last(algorithm: Algorithm, config: TrainConfig) -> None:
    """Convert the weights of convolutions to channels-last memory format."""
    if not any(tensor.dim() == 4 for tensor in (*algorithm.parameters(), *algorithm.buffers())):
        raise UsageError(
            f"--channels_last needs convolutions over images, and the featurizer for {config.dataset} has "
            "none; leave it out"
        )
    algorithm.to(memory_format=torch.channels_last)
    _match_gradient_formats()


def _wrap(featurizer: FeaturizerModule, wrapper: Callable[[Forward], Forward]) -> None:
    # A bound method, because deepcopy binds it to the copy of the featurizer.
    forward: Any = featurizer.forward
    featurizer.forward = MethodType(wrapper(forward.__func__), featurizer)


def _on_channels_last(forward: Forward) -> Forward:
    def on_channels_last(self: nn.Module, x: Tensor) -> Tensor:
        return forward(self, with_channels_innermost(x))

    return on_channels_last


def _in_bfloat16(forward: Forward) -> Forward:
    def in_bfloat16(self: nn.Module, x: Tensor) -> Tensor:
        # The cache of rounded weights would miss that an update changes the weights.
        with torch.autocast(x.device.type, dtype=torch.bfloat16, cache_enabled=False):
            return at_least_float32(forward(self, x))

    return in_bfloat16


@functools.cache
def _match_gradient_formats() -> None:
    """From now on, convert gradients to the memory format of their parameters before optimizer steps.

    Fused optimizers need equal formats. A gradient that was assigned, not accumulated by autograd, may have
    another one.
    """
    register_optimizer_step_pre_hook(_convert_gradients)


def _convert_gradients(optimizer: optim.Optimizer, *_: object) -> None:
    for group in optimizer.param_groups:
        for parameter in group["params"]:
            if parameter.grad is not None and parameter.dim() == 4:
                is_contiguous = parameter.is_contiguous()
                memory_format = torch.contiguous_format if is_contiguous else torch.channels_last
                parameter.grad = parameter.grad.contiguous(memory_format=memory_format)


def _has_tf32(device: torch.device) -> bool:
    return device.type == "cuda" and torch.cuda.get_device_capability(device) >= (8, 0)

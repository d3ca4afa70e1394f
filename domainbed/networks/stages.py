"""Featurizers that are a chain of named stages, the first of which can be frozen.

The hyper-parameter `freeze` names the last frozen stage. Frozen stages always are in evaluation mode (batch
norm, dropout, stochastic depth). Their parameters become buffers, so that they keep their names in state
dicts, and no optimizer, gradient or average gets them.
"""

from __future__ import annotations

import hashlib
from abc import abstractmethod
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, Self

import torch
from torch import Tensor, nn

from domainbed.errors import UsageError
from domainbed.hparams import Limits
from domainbed.networks.base import FeaturizerModule


@dataclass(frozen=True)
class Stage:
    """One stage of a featurizer.

    Attributes:
        name: its name, as the hyper-parameter `freeze` has it.
        function: maps the output of the stage before, or the inputs, to the output of this one.
        modules: the modules that it calls.
        parameters: further parameters that it uses, each as (module, name in that module).
    """

    name: str
    function: Callable[[Tensor], Tensor]
    modules: Sequence[nn.Module] = ()
    parameters: Sequence[tuple[nn.Module, str]] = ()


class StagedFeaturizer(FeaturizerModule):
    """Base of featurizers with stages.

    A subclass defines `stages`; features are `finish` of the last one's output. The inputs may also be
    outputs of the frozen stages, which then are not computed again. Their shape tells them from other inputs.

    Attributes:
        frozen: names of the frozen stages.
        frozen_shape: shape of one output of the last frozen stage; None if no stage is frozen, or if inputs
            have the same shape.
    """

    frozen: tuple[str, ...] = ()
    frozen_shape: tuple[int, ...] | None = None
    _overwrites_outputs = False
    """Whether the first trained stage writes into the output of the last frozen one."""

    @abstractmethod
    def stages(self) -> Sequence[Stage]:
        """All stages in order. The functions belong to this object, so they are not kept in it."""

    def blocks(self) -> dict[str, nn.Module]:
        """The modules that the trained stages end with, by the stages' names.

        What they give is the stage's output without pooling, for methods that look at inner features.
        """
        return {stage.name: stage.modules[-1] for stage in self.stages()[len(self.frozen) :]}

    def arrange(self, x: Tensor) -> Tensor:
        """The inputs, or outputs of a stage, in the memory layout that the stages compute with."""
        return x

    def finish(self, x: Tensor) -> Tensor:
        """Features (B, n_outputs) of the last stage's output."""
        features: Tensor = self.activation(x)
        return features

    def forward(self, x: Tensor) -> Tensor:
        """Features (B, n_outputs) of inputs (B, *input_shape) or of outputs (B, *frozen_shape)."""
        x = self.arrange(x)
        if self.frozen:
            x = x if tuple(x.shape[1:]) == self.frozen_shape else self.frozen_outputs(x)
            x = x.clone() if self._overwrites_outputs else x
        for stage in self.stages()[len(self.frozen) :]:
            x = stage.function(x)
        return self.finish(x)

    @torch.no_grad()
    def frozen_outputs(self, x: Tensor) -> Tensor:
        """Outputs (B, *frozen_shape) of the last frozen stage for inputs (B, *input_shape)."""
        x = self.arrange(x)
        for stage in self.stages()[: len(self.frozen)]:
            x = stage.function(x)
        return x

    def train(self, mode: bool = True) -> Self:
        """Set training or evaluation mode. Frozen stages stay in evaluation mode."""
        super().train(mode)
        for stage in self.stages()[: len(self.frozen)] if self.frozen else ():
            for module in stage.modules:
                module.eval()
        return self

    def freeze(self, last: str, input_shape: tuple[int, ...]) -> None:
        """Freeze the stages up to the one called `last`; "all" are all stages, "none" is none.

        Raises: UsageError for an unknown name.
        """
        stages = self.stages()
        names = [stage.name for stage in stages]
        choices = ("none", *(name for name in names if name != "all"), "all")
        Limits(choices=choices).check_limits(f'hyper-parameter "freeze" of {type(self).__name__}', last)
        count = 0 if last == "none" else len(names) if last == "all" else names.index(last) + 1
        self.frozen = tuple(names[:count])
        for stage in stages[:count]:
            for module in stage.modules:
                for each in module.modules():
                    for name in list(each._parameters):
                        _make_buffer(each, name)
            for module, name in stage.parameters:
                _make_buffer(module, name)
        if count:
            self._look_at_outputs(input_shape)

    def _look_at_outputs(self, input_shape: tuple[int, ...]) -> None:
        """Find out the shape of the frozen stages' outputs, and whether the next stage overwrites them."""
        mode = self.training
        self.eval()
        with torch.no_grad():
            inputs = self.arrange(torch.zeros(1, *input_shape))
            outputs = self.frozen_outputs(inputs)
            before, x = outputs.clone(), outputs
            for stage in self.stages()[len(self.frozen) :]:
                x = stage.function(x)
        self._overwrites_outputs = not torch.equal(outputs, before)
        self.frozen_shape = None if outputs.shape == inputs.shape else tuple(outputs.shape[1:])
        self.train(mode)

    def frozen_tensors(self) -> dict[str, Tensor]:
        """Parameters and buffers of the frozen stages, by their names in the state dict."""
        stages = self.stages()[: len(self.frozen)] if self.frozen else ()
        ids = {id(each) for stage in stages for module in stage.modules for each in module.buffers()}
        ids |= {id(getattr(module, name)) for stage in stages for module, name in stage.parameters}
        return {name: buffer for name, buffer in self.named_buffers() if id(buffer) in ids}

    def frozen_hash(self) -> str:
        """SHA-256 of what the frozen stages compute: their names, parameters and buffers."""
        digest = hashlib.sha256(f"{type(self).__qualname__} {self.frozen}".encode())
        for name, tensor in sorted(self.frozen_tensors().items()):
            digest.update(f"\n{name} {tensor.dtype} {tuple(tensor.shape)}\n".encode())
            digest.update(tensor.detach().cpu().contiguous().numpy().tobytes())
        return digest.hexdigest()


def freeze(featurizer: FeaturizerModule, last: str, input_shape: tuple[int, ...]) -> None:
    """Freeze the stages of a featurizer up to the one called `last`.

    Raises: UsageError if the featurizer has no stages, or none of this name.
    """
    if last == "none":
        return
    if not isinstance(featurizer, StagedFeaturizer):
        raise UsageError(
            f'hyper-parameter "freeze" needs a featurizer with stages, but {type(featurizer).__name__} has '
            'none: leave it out, or choose another "featurizer"'
        )
    featurizer.freeze(last, input_shape)


def frozen_names(module: nn.Module) -> set[str]:
    """Names, within `module`, of all tensors of frozen stages."""
    return {
        f"{prefix}.{name}".removeprefix(".")
        for prefix, each in module.named_modules()
        if isinstance(each, StagedFeaturizer)
        for name in each.frozen_tensors()
    }


def changing_buffers(module: nn.Module) -> dict[str, Tensor]:
    """The buffers of `module` by name, without those of frozen stages."""
    frozen = frozen_names(module)
    return {name: buffer for name, buffer in module.named_buffers() if name not in frozen}


def shared_frozen_stages(module: nn.Module) -> StagedFeaturizer | None:
    """The featurizer in `module` with frozen stages, or one of several whose frozen stages compute the same.

    Returns: None if there is no such featurizer, or their frozen stages differ.
    """
    found = [each for each in module.modules() if isinstance(each, StagedFeaturizer) and each.frozen]
    return found[0] if len({each.frozen_hash() for each in found}) == 1 else None


def in_sequence(modules: Sequence[nn.Module]) -> Callable[[Tensor], Tensor]:
    """A function that applies `modules`, one after the other."""

    def apply(x: Tensor) -> Any:  # noqa: ANN401 - what the last module returns
        for module in modules:
            x = module(x)
        return x

    return apply


def _make_buffer(module: nn.Module, name: str) -> None:
    """Make the parameter `name` of `module` itself a buffer."""
    parameter = module._parameters.get(name)
    if parameter is not None:
        del module._parameters[name]
        module.register_buffer(name, parameter.detach())

"""Layers whose parameters' gradients can be formed for each environment's slice of one joint pass."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from itertools import accumulate
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from domainbed.gradients.parameter_gradients import Held, Outer, ParameterGradients

_aten = torch.ops.aten


class LayerSlices:
    """One use of a layer: samples in, samples out, each by itself.

    A subclass has the signature of the function that it stands for.

    Attributes:
        inputs: (N, ...), N samples, those of one environment after those of another.
        parameters: the layer's parameters by name, without missing ones.
        mixes: whether samples influence each other.
    """

    mixes = False

    def __init__(self, inputs: Tensor, **parameters: Tensor | None) -> None:
        self.inputs = inputs
        self.parameters = {name: value for name, value in parameters.items() if value is not None}

    def detached(self, name: str) -> Tensor | None:
        """A parameter's value, or None if the layer has none of the name."""
        return self.parameters[name].detach() if name in self.parameters else None

    def output(self) -> Tensor:
        """What the layer makes of its inputs; differentiable by the inputs only."""
        raise NotImplementedError

    def gradients(
        self, outputs: Tensor, sizes: Sequence[int], names: Sequence[str]
    ) -> dict[str, ParameterGradients]:
        """Gradients of the K environments, of `sizes` samples each, by the parameters called `names`.

        Args:
            outputs: gradient of the sum of the environments' losses by the output.
        """
        outputs = outputs.contiguous(memory_format=_layout(self.inputs))
        slices = [
            self.of_slice(gradient, slice(end - len(gradient), end))
            for gradient, end in zip(outputs.split(list(sizes)), accumulate(sizes), strict=True)
        ]
        return {
            name: Held(torch.stack([each[name].flatten() for each in slices]).to(self.parameters[name].dtype))
            for name in names
        }

    def of_slice(self, outputs: Tensor, part: slice) -> Mapping[str, Tensor]:
        """Gradients by the parameters from the samples `part` alone, with gradients `outputs` by theirs."""
        raise NotImplementedError

    def forget(self) -> None:
        """Let go of all tensors: what a hook of the graph holds that belongs to the graph is never freed."""
        vars(self).clear()


class Linear(LayerSlices):
    """`F.linear` on (N, ..., F)."""

    def __init__(self, input: Tensor, weight: Tensor, bias: Tensor | None = None) -> None:
        super().__init__(input, weight=weight, bias=bias)

    def output(self) -> Tensor:
        weight = self.detached("weight")
        assert weight is not None
        return F.linear(self.inputs, weight, self.detached("bias"))

    def gradients(
        self, outputs: Tensor, sizes: Sequence[int], names: Sequence[str]
    ) -> dict[str, ParameterGradients]:
        positions = outputs[0].numel() // outputs.shape[-1]
        rows = [n * positions for n in sizes]
        b, a = outputs.reshape(-1, outputs.shape[-1]), self.inputs.reshape(-1, self.inputs.shape[-1])
        found: dict[str, ParameterGradients] = {}
        if "weight" in names:
            found["weight"] = Outer(b, a.detach().to(b.dtype), rows, self.parameters["weight"].dtype)
        if "bias" in names:
            sums = torch.stack([part.sum(0) for part in b.split(rows)])
            found["bias"] = Held(sums.to(self.parameters["bias"].dtype))
        return found


class Convolution(LayerSlices):
    """`F.conv1d`, `F.conv2d` and `F.conv3d` on (N, C, ...)."""

    def __init__(
        self,
        function: Callable[..., Tensor],
        input: Tensor,
        weight: Tensor,
        bias: Tensor | None = None,
        stride: Any = 1,  # noqa: ANN401 - a number or one for each dimension; of padding also a name
        padding: Any = 0,  # noqa: ANN401
        dilation: Any = 1,  # noqa: ANN401
        groups: int = 1,
    ) -> None:
        super().__init__(input, weight=weight, bias=bias)
        self._function = function
        self._options = stride, padding, dilation, groups
        self.mixes = isinstance(padding, str) or input.dim() != weight.dim()

    def output(self) -> Tensor:
        return self._function(self.inputs, self.detached("weight"), self.detached("bias"), *self._options)

    def of_slice(self, outputs: Tensor, part: slice) -> Mapping[str, Tensor]:
        weight, dimensions = self.parameters["weight"], self.inputs.dim() - 2
        stride, padding, dilation = (
            list(each) if isinstance(each, tuple | list) else [each] * dimensions
            for each in self._options[:3]
        )
        wanted = [False, True, "bias" in self.parameters]
        _, of_weight, of_bias = _aten.convolution_backward(
            outputs,
            self.inputs[part].to(outputs.dtype),
            weight.to(outputs.dtype),
            [len(weight)],
            stride,
            padding,
            dilation,
            False,
            [0] * dimensions,
            self._options[3],
            wanted,
        )
        return {"weight": of_weight, "bias": of_bias}


class GroupNorm(LayerSlices):
    """`F.group_norm` on (N, C, ...)."""

    def __init__(
        self,
        input: Tensor,
        num_groups: int,
        weight: Tensor | None = None,
        bias: Tensor | None = None,
        eps: float = 1e-5,
    ) -> None:
        super().__init__(_as_norms_take_it(input), weight=weight, bias=bias)
        self._groups, self._eps = num_groups, eps
        self._channels = input.shape[1], input[0, 0].numel()

    def output(self) -> Tensor:
        result, mean, rstd = torch.native_group_norm(
            self.inputs,
            self.detached("weight"),
            self.detached("bias"),
            len(self.inputs),
            *self._channels,
            self._groups,
            self._eps,
        )
        self._mean, self._rstd = mean.detach(), rstd.detach()
        return result

    def of_slice(self, outputs: Tensor, part: slice) -> Mapping[str, Tensor]:
        _, of_weight, of_bias = _aten.native_group_norm_backward(
            outputs.to(self.inputs.dtype),
            self.inputs[part],
            self._mean[part],
            self._rstd[part],
            self.detached("weight"),
            len(outputs),
            *self._channels,
            self._groups,
            [False, True, True],
        )
        return {"weight": of_weight, "bias": of_bias}


class LayerNorm(LayerSlices):
    """`F.layer_norm` on (N, ...)."""

    def __init__(
        self,
        input: Tensor,
        normalized_shape: Sequence[int],
        weight: Tensor | None = None,
        bias: Tensor | None = None,
        eps: float = 1e-5,
    ) -> None:
        super().__init__(_as_norms_take_it(input), weight=weight, bias=bias)
        self._shape, self._eps = list(normalized_shape), eps
        self.mixes = len(self._shape) >= input.dim()

    def output(self) -> Tensor:
        result, mean, rstd = torch.native_layer_norm(
            self.inputs, self._shape, self.detached("weight"), self.detached("bias"), self._eps
        )
        self._mean, self._rstd = mean.detach(), rstd.detach()
        return result

    def of_slice(self, outputs: Tensor, part: slice) -> Mapping[str, Tensor]:
        _, of_weight, of_bias = _aten.native_layer_norm_backward(
            outputs.to(self.inputs.dtype),
            self.inputs[part],
            self._shape,
            self._mean[part],
            self._rstd[part],
            self.detached("weight"),
            self.detached("bias"),
            [False, True, True],
        )
        return {"weight": of_weight, "bias": of_bias}


class BatchNorm(LayerSlices):
    """`F.batch_norm` on (N, C, ...), with running statistics; those of the minibatch mix samples."""

    def __init__(
        self,
        input: Tensor,
        running_mean: Tensor | None,
        running_var: Tensor | None,
        weight: Tensor | None = None,
        bias: Tensor | None = None,
        training: bool = False,
        momentum: float = 0.1,
        eps: float = 1e-5,
    ) -> None:
        super().__init__(input, weight=weight, bias=bias)
        self._mean, self._var, self._eps = running_mean, running_var, eps
        self.mixes = training or running_mean is None

    def output(self) -> Tensor:
        return F.batch_norm(
            self.inputs, self._mean, self._var, self.detached("weight"), self.detached("bias"), eps=self._eps
        )

    def of_slice(self, outputs: Tensor, part: slice) -> Mapping[str, Tensor]:
        _, of_weight, of_bias = _aten.native_batch_norm_backward(
            outputs.to(self.inputs.dtype),
            self.inputs[part],
            self.detached("weight"),
            self._mean,
            self._var,
            None,
            None,
            False,
            self._eps,
            [False, True, True],
        )
        return {"weight": of_weight, "bias": of_bias}


def _layout(x: Tensor) -> torch.memory_format:
    """The order in which `x` lies in memory; a gradient in another one would be copied for each slice."""
    innermost = x.dim() == 4 and not x.is_contiguous() and x.is_contiguous(memory_format=torch.channels_last)
    return torch.channels_last if innermost else torch.contiguous_format


def _as_norms_take_it(x: Tensor) -> Tensor:
    """Contiguous, and in float32 where autocast computes group and layer norms so, which is on GPUs."""
    if x.device.type == "cuda" and torch.is_autocast_enabled("cuda"):
        x = x.float()
    return x.contiguous()


def _convolution(function: Callable[..., Tensor]) -> Callable[..., Convolution]:
    return lambda *args, **kwargs: Convolution(function, *args, **kwargs)


LAYERS: dict[Callable[..., Any], Callable[..., LayerSlices]] = {
    F.linear: Linear,
    F.conv1d: _convolution(F.conv1d),
    F.conv2d: _convolution(F.conv2d),
    F.conv3d: _convolution(F.conv3d),
    F.group_norm: GroupNorm,
    F.layer_norm: LayerNorm,
    F.batch_norm: BatchNorm,
}
"""Functions of torch -> what takes their calls apart."""

"""Gradients of K environments by one layer's parameters, from the environments' slices of a joint pass."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence

import torch
from torch import Tensor, nn
from torch.func import functional_call
from torch.nn import grad

from domainbed.gradients.pieces import OuterProducts, PieceGradients, Rows
from domainbed.gradients.recording import LayerPass

_CONVOLUTIONS: Mapping[type[nn.Module], Callable[..., Tensor]] = {
    nn.Conv1d: grad.conv1d_weight,
    nn.Conv2d: grad.conv2d_weight,
    nn.Conv3d: grad.conv3d_weight,
}


def layer_gradients(layer_pass: LayerPass, sizes: Sequence[int]) -> dict[str, PieceGradients]:
    """Name of each trainable parameter of the layer -> its K gradients.

    Args:
        layer_pass: N samples, those of one environment after those of another.
        sizes: number of samples of each of the K environments; they sum to N.
    """
    if type(layer_pass.layer) is nn.Linear:
        return _of_linear(layer_pass, sizes)
    of_slice = _of_convolution if is_plain_convolution(layer_pass.layer) else _of_any_layer
    inputs, gradients = layer_pass.inputs.split(list(sizes)), layer_pass.gradients.split(list(sizes))
    slices = [of_slice(layer_pass, x, b) for x, b in zip(inputs, gradients, strict=True)]
    return {
        name: Rows([each[name].flatten().to(parameter.dtype) for each in slices])
        for name, parameter in layer_pass.parameters.items()
    }


def is_plain_convolution(layer: nn.Module) -> bool:
    """Whether the layer is a convolution with a fixed number of zeros as its padding."""
    return (
        isinstance(layer, nn.Conv1d | nn.Conv2d | nn.Conv3d)
        and type(layer) in _CONVOLUTIONS
        and layer.padding_mode == "zeros"
        and not isinstance(layer.padding, str)
    )


def _of_linear(layer_pass: LayerPass, sizes: Sequence[int]) -> dict[str, PieceGradients]:
    b = layer_pass.gradients
    positions = b[0].numel() // b.shape[-1]
    rows = [n * positions for n in sizes]
    b, a = b.reshape(-1, b.shape[-1]), layer_pass.inputs.reshape(-1, layer_pass.inputs.shape[-1])
    found: dict[str, PieceGradients] = {}
    for name, parameter in layer_pass.parameters.items():
        if name == "weight":
            found[name] = OuterProducts(b, a.to(b.dtype), rows, parameter.dtype)
        else:
            found[name] = Rows([part.sum(0).to(parameter.dtype) for part in b.split(rows)])
    return found


def _of_convolution(layer_pass: LayerPass, inputs: Tensor, gradients: Tensor) -> dict[str, Tensor]:
    layer = layer_pass.layer
    assert isinstance(layer, nn.Conv1d | nn.Conv2d | nn.Conv3d)
    found = {}
    for name, parameter in layer_pass.parameters.items():
        if name == "weight":
            found[name] = _CONVOLUTIONS[type(layer)](
                inputs.to(gradients.dtype),
                parameter.shape,
                gradients,
                stride=layer.stride,
                padding=layer.padding,
                dilation=layer.dilation,
                groups=layer.groups,
            )
        else:
            found[name] = gradients.flatten(2).sum((0, 2))
    return found


def _of_any_layer(layer_pass: LayerPass, inputs: Tensor, gradients: Tensor) -> dict[str, Tensor]:
    """By a second forward pass of the layer over the slice; for layers that cost little, such as norms."""
    parameters = {name: each.detach().requires_grad_() for name, each in layer_pass.parameters.items()}
    dtype = next(iter(parameters.values())).dtype
    inputs = inputs.to(dtype).contiguous()  # in torch 2.6, group norms of channels-last inputs can crash
    with torch.enable_grad(), torch.autocast(inputs.device.type, enabled=False):
        output = functional_call(layer_pass.layer, parameters, (inputs,))
    found = torch.autograd.grad(output, list(parameters.values()), gradients.to(output.dtype))
    return dict(zip(parameters, found, strict=True))

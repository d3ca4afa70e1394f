"""What per-sample gradients are made of: the input of each layer, and the gradient by its output."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.autograd.graph import GradientEdge, get_gradient_edge
from torch.func import functional_call, vjp, vmap

from domainbed.errors import UsageError


@dataclass(frozen=True)
class LayerPass:
    """One layer with parameters in one forward and backward pass over N samples.

    Attributes:
        layer: the module; the parameters meant are its own, not those of modules in it.
        inputs: (N, ...).
        gradients: of each sample's own loss by the layer's output (N, ...).
    """

    layer: nn.Module
    inputs: Tensor
    gradients: Tensor

    def factors(self) -> tuple[Tensor, Tensor] | None:
        """Inputs (N, G, p, T) and gradients (N, G, q, T) of a linear layer or a 2-d convolution, else None.

        The weight's gradient of sample i is, in each of G groups, the sum over T positions of b_t a_t^T; the
        bias's is the sum of the gradients.
        """
        layer, n = self.layer, len(self.inputs)
        if type(layer) is nn.Linear:
            a = self.inputs.reshape(n, 1, -1, layer.in_features).transpose(2, 3)
            b = self.gradients.reshape(n, 1, -1, layer.out_features).transpose(2, 3)
            return a, b
        if type(layer) is nn.Conv2d and layer.padding_mode == "zeros" and not isinstance(layer.padding, str):
            a = F.unfold(self.inputs, layer.kernel_size, layer.dilation, layer.padding, layer.stride)
            a = a.reshape(n, layer.groups, -1, a.shape[2])
            return a, self.gradients.reshape(n, layer.groups, -1, a.shape[3])
        return None

    @property
    def trained(self) -> set[str]:
        """Names of the layer's own parameters that are trained."""
        return set(_own(self.layer))

    def materialised(self) -> Tensor:
        """The per-sample gradients (N, P) of any layer that maps one tensor to one tensor."""
        parameters = {name: parameter.detach() for name, parameter in _own(self.layer).items()}

        def gradient(x: Tensor, b: Tensor) -> Tensor:
            def output(parameters: dict[str, Tensor]) -> Tensor:
                y: Tensor = functional_call(self.layer, parameters, (x[None],))
                return y

            (found,) = vjp(output, parameters)[1](b[None])
            return torch.cat([found[name].flatten() for name in parameters])

        gradients: Tensor = vmap(gradient)(self.inputs, self.gradients)
        return gradients


def layer_passes(network: nn.Module, x: Tensor, y: Tensor) -> list[LayerPass]:
    """One forward and one backward pass, the latter for the outputs of layers only.

    Args:
        network: maps inputs to logits, each sample for itself.
        x: inputs (N, *input_shape).
        y: int64 labels (N,) of the cross-entropy.

    Returns: a pass for each layer that has trainable parameters of its own.

    Raises: UsageError if the network couples samples, or has a layer that this can't be done for.
    """
    layers = _layers(network)
    inputs: dict[str, Tensor] = {}
    edges: dict[str, GradientEdge] = {}
    with torch.enable_grad(), _recording(layers, inputs, edges):
        # A sum: the gradient by a sample's output is that of the sample's own loss.
        loss = F.cross_entropy(network(x), y, reduction="sum")
    unused = ", ".join(name for name in layers if name not in edges)
    if unused:
        raise UsageError(f"per-sample gradients can't be had: {unused} had no part in the forward pass")
    gradients = torch.autograd.grad(loss, list(edges.values()))
    return [
        LayerPass(layers[name], inputs[name], gradient)
        for name, gradient in zip(edges, gradients, strict=True)
    ]


def _own(layer: nn.Module) -> dict[str, nn.Parameter]:
    """Trainable parameters of `layer` itself."""
    own = layer.named_parameters(recurse=False)
    return {name: parameter for name, parameter in own if parameter.requires_grad}


def _layers(network: nn.Module) -> dict[str, nn.Module]:
    """The modules with trainable parameters of their own, by name; raises UsageError as `layer_passes`."""
    layers = {name: module for name, module in network.named_modules() if _own(module)}
    for name, module in network.named_modules():
        if isinstance(module, nn.modules.batchnorm._BatchNorm) and (
            module.training or module.running_mean is None
        ):
            raise UsageError(
                f"batch norm {name} couples the samples of a minibatch, which have no gradients of their own "
                "then; measure in evaluation mode, or with freeze_bn"
            )
    parameters = [id(parameter) for layer in layers.values() for parameter in _own(layer).values()]
    if len(set(parameters)) < len(parameters):
        raise UsageError("per-sample gradients can't be had: two layers share a parameter")
    return layers


@contextmanager
def _recording(
    layers: dict[str, nn.Module], inputs: dict[str, Tensor], edges: dict[str, GradientEdge]
) -> Iterator[None]:
    """Within it, a forward pass leaves each layer's input, and where its output stands in the graph."""

    def keep(name: str, layer: nn.Module, args: tuple[object, ...], output: object) -> None:
        if (
            name in edges
            or len(args) != 1
            or not isinstance(args[0], Tensor)
            or not isinstance(output, Tensor)
        ):
            raise UsageError(
                f"per-sample gradients can't be had: layer {name} ({type(layer).__name__}) does not map one "
                "tensor to one tensor, once a pass"
            )
        inputs[name] = args[0].detach()
        # Not the tensor: what comes after may change it in place (ReLU does).
        edges[name] = get_gradient_edge(output)

    handles = [layer.register_forward_hook(partial(keep, name)) for name, layer in layers.items()]
    try:
        yield
    finally:
        for handle in handles:
            handle.remove()

"""Gradients and Hessian-vector products layer by layer, added in place.

autograd makes a gradient of each parameter before it is added to another one, and a product of the Hessian
needs two. For AlexNet's linear layers that is 450 MB, and as many again for the rest. Here a linear layer's
share is a matrix product that is added where it belongs: with inputs a and gradients b by the outputs, the
gradient of the weight is the sum of b a^T, and its derivative along a direction that of b' a^T + b a'^T.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.autograd import forward_ad
from torch.func import functional_call

from domainbed.gradients.recording import LayerPass, NotSeparable, Recording
from domainbed_gs.curvature.network import ParameterVector

Named = Mapping[str, Tensor]
"""Tensors in the shapes of a network's parameters, by their names."""


def is_separable(network: nn.Module, names: Collection[str], x: Tensor, y: Tensor) -> bool:
    """Whether each parameter in `names` belongs to a layer that is called once, and no other one is trained.

    Args:
        network: maps inputs to logits.
        names: names of the parameters that its outputs depend on.
        x: some inputs (B, ...).
        y: int64 labels (B,).
    """
    try:
        with torch.enable_grad(), Recording(network) as recording:
            loss = F.cross_entropy(network(x), y)
        recording.check_parameter_use(loss)
    except NotSeparable:
        return False
    passes = recording.backward(loss)
    return {_full_name(layer, own) for layer, each in passes.items() for own in each.parameters} == {*names}


def add_gradient(
    network: nn.Module,
    parameters: ParameterVector,
    at: Tensor,
    x: Tensor,
    y: Tensor,
    out: Named,
    scale: float,
) -> None:
    """Add `scale` times the gradient of the sum of the samples' cross-entropies to `out`.

    Args:
        network: as `is_separable` has found.
        parameters: its trained parameters.
        at: their values (P,).
        x: inputs (B, ...).
        y: int64 labels (B,).
        out: what is added to.
        scale: the factor.
    """
    leaves = {name: value.detach().requires_grad_() for name, value in parameters.views(at).items()}
    passes = _passes(network, parameters, leaves, x, y, differentiable=False)
    while passes:
        name, layer_pass = passes.popitem()  # its memory is freed with it
        into = _of_layer(name, layer_pass, out)
        if type(layer_pass.layer) is nn.Linear:
            _add_linear(into, layer_pass.gradients, layer_pass.inputs, scale)
            continue
        own = _of_layer(name, layer_pass, leaves)
        for each, found in _by_second_pass(layer_pass, own, differentiable=False).items():
            into[each].add_(found, alpha=scale)


def add_hessian_product(
    network: nn.Module,
    parameters: ParameterVector,
    at: Tensor,
    direction: Named,
    x: Tensor,
    y: Tensor,
    out: Named,
    scale: float,
) -> None:
    """Add `scale` times the Hessian of the sum of cross-entropies times `direction` to `out`.

    Other arguments are those of `add_gradient`.
    """
    with forward_ad.dual_level():
        duals = {
            name: forward_ad.make_dual(value.detach().requires_grad_(), direction[name])
            for name, value in parameters.views(at).items()
        }
        passes = _passes(network, parameters, duals, x, y, differentiable=True)
        while passes:
            name, layer_pass = passes.popitem()
            into = _of_layer(name, layer_pass, out)
            if type(layer_pass.layer) is nn.Linear:
                a, of_a = _value_and_derivative(layer_pass.inputs)
                b, of_b = _value_and_derivative(layer_pass.gradients)
                if of_b is not None:
                    _add_linear(into, of_b, a, scale)
                if of_a is not None and "weight" in into:
                    _add_linear({"weight": into["weight"]}, b, of_a, scale)
                continue
            own = _of_layer(name, layer_pass, duals)
            for each, found in _by_second_pass(layer_pass, own, differentiable=True).items():
                derivative = _value_and_derivative(found)[1]
                if derivative is not None:
                    into[each].add_(derivative.detach(), alpha=scale)


def _passes(
    network: nn.Module,
    parameters: ParameterVector,
    values: Named,
    x: Tensor,
    y: Tensor,
    differentiable: bool,
) -> dict[str, LayerPass]:
    with torch.enable_grad(), Recording(network) as recording:
        loss = F.cross_entropy(parameters.outputs(values, x), y, reduction="sum")
    return recording.backward(loss, differentiable=differentiable)


def _of_layer(name: str, layer_pass: LayerPass, tensors: Named) -> dict[str, Tensor]:
    """Those of a layer's parameters, by their names in the layer."""
    return {own: tensors[_full_name(name, own)] for own in layer_pass.parameters}


def _full_name(layer: str, own: str) -> str:
    return f"{layer}.{own}".lstrip(".")


def _add_linear(into: dict[str, Tensor], b: Tensor, a: Tensor, scale: float) -> None:
    """Add the sum over samples and positions of b a^T, and of b for the bias."""
    b, a = b.detach().reshape(-1, b.shape[-1]), a.detach().reshape(-1, a.shape[-1])
    if "weight" in into:
        into["weight"].addmm_(b.T, a, alpha=scale)
    if "bias" in into:
        into["bias"].add_(b.sum(0), alpha=scale)


def _by_second_pass(
    layer_pass: LayerPass, parameters: dict[str, Tensor], differentiable: bool
) -> dict[str, Tensor]:
    """Gradients by a layer's parameters, by a second forward pass of the layer alone."""
    with torch.enable_grad():
        output = functional_call(layer_pass.layer, parameters, (layer_pass.inputs,), tie_weights=False)
    # With a graph, group norms use operations that have a forward derivative.
    found = torch.autograd.grad(
        output, list(parameters.values()), layer_pass.gradients, create_graph=differentiable
    )
    return dict(zip(parameters, found, strict=True))


def _value_and_derivative(tensor: Tensor) -> tuple[Tensor, Tensor | None]:
    """The parts of a dual tensor; a derivative of zero may be None."""
    pair = forward_ad.unpack_dual(tensor)
    return pair.primal, pair.tangent

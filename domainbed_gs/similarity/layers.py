"""Per-sample gradients of one layer, from its pass over N samples."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.func import functional_call, vjp, vmap

from domainbed.gradients.layers import is_plain_convolution
from domainbed.gradients.recording import LayerPass


def factors(layer_pass: LayerPass) -> tuple[Tensor, Tensor] | None:
    """Inputs (N, G, p, T) and gradients (N, G, q, T) of a linear layer or a 2-d convolution, else None.

    The weight's gradient of sample i is, in each of G groups, the sum over T positions of b_t a_t^T; the
    bias's is the sum of the gradients.
    """
    layer, n = layer_pass.layer, len(layer_pass.inputs)
    if type(layer) is nn.Linear:
        a = layer_pass.inputs.reshape(n, 1, -1, layer.in_features).transpose(2, 3)
        b = layer_pass.gradients.reshape(n, 1, -1, layer.out_features).transpose(2, 3)
        return a, b
    if isinstance(layer, nn.Conv2d) and is_plain_convolution(layer):
        padding = layer.padding
        assert not isinstance(padding, str)
        a = F.unfold(layer_pass.inputs, layer.kernel_size, layer.dilation, padding, layer.stride)
        a = a.reshape(n, layer.groups, -1, a.shape[2])
        return a, layer_pass.gradients.reshape(n, layer.groups, -1, a.shape[3])
    return None


def per_sample_gradients(layer_pass: LayerPass) -> Tensor:
    """The samples' gradients (N, P) by the parameters of any layer that maps one tensor to one tensor."""
    parameters = {name: parameter.detach() for name, parameter in layer_pass.parameters.items()}

    def gradient(x: Tensor, b: Tensor) -> Tensor:
        def output(parameters: dict[str, Tensor]) -> Tensor:
            y: Tensor = functional_call(layer_pass.layer, parameters, (x[None],))
            return y

        (found,) = vjp(output, parameters)[1](b[None])
        return torch.cat([found[name].flatten() for name in parameters])

    gradients: Tensor = vmap(gradient)(layer_pass.inputs, layer_pass.gradients)
    return gradients

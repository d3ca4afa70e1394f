"""Variance of per-sample gradients of linear layers, in closed form.

A linear layer's weight gradient of one sample is b a^T, a the layer's input and b the gradient of the
sample's loss by the layer's output. First and second moments over samples are therefore two matrix
products, and no per-sample gradient is ever made (gradient surgery specification, D.5).
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from domainbed.errors import UsageError


@dataclass(frozen=True)
class LinearPass:
    """What per-sample gradients of one linear layer's parameters are made of.

    Attributes:
        inputs: (B, F).
        gradients: of each sample's own loss by the layer's outputs (B, C).
        bias: whether the layer has one.
    """

    inputs: Tensor
    gradients: Tensor
    bias: bool

    def split(self, sizes: Sequence[int]) -> list[LinearPass]:
        """The environments' parts of it."""
        parts = zip(self.inputs.split(list(sizes)), self.gradients.split(list(sizes)), strict=True)
        return [LinearPass(inputs, gradients, self.bias) for inputs, gradients in parts]

    def variances(self) -> dict[str, Tensor]:
        """Biased variance over the samples: of the weight's gradient (C, F), and the bias's (C,)."""
        a, b = self.inputs, self.gradients
        variances = {"weight": b.square().T @ a.square() / len(a) - (b.T @ a / len(a)).square()}
        if self.bias:
            variances["bias"] = b.square().mean(0) - b.mean(0).square()
        return variances


def linear_layers(head: nn.Module) -> dict[str, nn.Linear]:
    """The linear layers of `head` by name; raises `UsageError` if others have parameters too."""
    layers = {name: layer for name, layer in head.named_modules() if isinstance(layer, nn.Linear)}
    known = {id(parameter) for layer in layers.values() for parameter in layer.parameters()}
    if any(id(parameter) not in known for parameter in head.parameters()):
        raise UsageError(
            "variances of per-sample gradients are known for linear layers only, not for all parameters of "
            f"{head}; take another classifier or algorithm".replace("\n", " ")
        )
    return layers


def forward_with_gradients(
    head: nn.Module, features: Tensor, y: Tensor, differentiable: bool
) -> tuple[Tensor, dict[str, LinearPass]]:
    """Logits (B, C) of `head`, and its linear layers' passes under the cross-entropy with labels y (B,).

    Args:
        head: maps features (B, F) to logits; each of its linear layers is used once.
        features: (B, F).
        y: int64 labels (B,).
        differentiable: whether the passes can be differentiated by features and parameters.
    """
    layers = linear_layers(head)
    with _recorded(layers) as ends:
        logits: Tensor = head(features)
    losses = F.cross_entropy(logits, y, reduction="sum")  # a sum: each sample's gradient is its own
    gradients = torch.autograd.grad(
        losses, [ends[name][1] for name in layers], retain_graph=True, create_graph=differentiable
    )
    passes = {}
    for (name, layer), gradient in zip(layers.items(), gradients, strict=True):
        inputs = ends[name][0] if differentiable else ends[name][0].detach()
        passes[name] = LinearPass(inputs, gradient, layer.bias is not None)
    return logits, passes


@contextmanager
def _recorded(layers: dict[str, nn.Linear]) -> Iterator[dict[str, tuple[Tensor, Tensor]]]:
    """Within it, each layer's input and output of a forward pass are kept by its name."""
    ends: dict[str, tuple[Tensor, Tensor]] = {}

    def keep(name: str, layer: nn.Module, inputs: tuple[Tensor], output: Tensor) -> None:
        ends[name] = (inputs[0], output)

    handles = [layer.register_forward_hook(partial(keep, name)) for name, layer in layers.items()]
    try:
        yield ends
    finally:
        for handle in handles:
            handle.remove()

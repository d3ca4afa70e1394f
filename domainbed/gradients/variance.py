"""Variance of per-sample gradients of linear layers, in closed form.

A linear layer's weight gradient of one sample is b a^T, a the layer's input and b the gradient of the
sample's loss by the layer's output. First and second moments over samples are therefore two matrix
products, and no per-sample gradient is ever made.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch.nn.functional as F
from torch import Tensor, nn

from domainbed.errors import UsageError
from domainbed.gradients.recording import LayerPass, Recording


def require_linear_layers(head: nn.Module) -> None:
    """Raise `UsageError` if modules of `head` other than linear layers have trainable parameters."""
    for module in head.modules():
        own = [parameter for parameter in module.parameters(recurse=False) if parameter.requires_grad]
        if own and not isinstance(module, nn.Linear):
            raise UsageError(
                "variances of per-sample gradients are known for linear layers only, not for "
                f"{type(module).__name__}; choose another classifier or algorithm"
            )


def logits_and_passes(
    head: nn.Module, features: Tensor, y: Tensor, differentiable: bool
) -> tuple[Tensor, dict[str, LayerPass]]:
    """Logits (B, C) of `head`, and the passes of its linear layers under each sample's cross-entropy.

    Args:
        head: maps features (B, F) to logits; each of its linear layers is called once.
        features: (B, F).
        y: int64 labels (B,).
        differentiable: whether the passes can be differentiated by features and parameters.
    """
    with Recording(head) as recording:
        logits: Tensor = head(features)
    # A sum: each sample's gradient is that of its own loss.
    losses = F.cross_entropy(logits, y, reduction="sum")
    return logits, recording.backward(losses, keep_graph=True, differentiable=differentiable)


def variances_by_environment(passes: dict[str, LayerPass], sizes: Sequence[int]) -> list[dict[str, Tensor]]:
    """For each environment: name of each parameter -> biased variance over its samples' gradients.

    Args:
        passes: name of each linear layer -> its pass; inputs (B, F), gradients (B, C), the samples of one
            environment after those of another.
        sizes: number of samples of each environment.

    Returns: a weight's variance is (C, F), a bias's (C,).
    """
    found: list[dict[str, Tensor]] = [{} for _ in sizes]
    for name, layer_pass in passes.items():
        inputs, gradients = layer_pass.inputs.split(list(sizes)), layer_pass.gradients.split(list(sizes))
        for variances, a, b in zip(found, inputs, gradients, strict=True):
            for own in layer_pass.parameters:
                variances[f"{name}.{own}".lstrip(".")] = _of_weight(a, b) if own == "weight" else _of_bias(b)
    return found


def _of_weight(a: Tensor, b: Tensor) -> Tensor:
    return b.square().T @ a.square() / len(a) - (b.T @ a / len(a)).square()


def _of_bias(b: Tensor) -> Tensor:
    return b.square().mean(0) - b.mean(0).square()

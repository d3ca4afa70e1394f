"""Type of a minibatch, and the union of the environments' minibatches."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

Minibatch = tuple[Tensor, Tensor]
"""Inputs (B, *input_shape) and int64 labels (B,) of one environment."""


def concatenate(minibatches: Sequence[Minibatch]) -> Minibatch:
    """Inputs and labels of all minibatches, in their order."""
    return torch.cat([x for x, _ in minibatches]), torch.cat([y for _, y in minibatches])

"""A minibatch of one environment, and those of all environments as one."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

Minibatch = tuple[Tensor, Tensor]
"""Inputs (B, *input_shape) and int64 labels (B,) of one environment."""


def concatenate(minibatches: Sequence[Minibatch]) -> Minibatch:
    """The minibatches of all environments as one, in their order."""
    return torch.cat([x for x, _ in minibatches]), torch.cat([y for _, y in minibatches])

"""Sums over long vectors as numbers, and random vectors by counters."""

from __future__ import annotations

import torch
from torch import Tensor

from domainbed.gradients import vectors
from domainbed.seeds import counter_seed


def dot(a: Tensor, b: Tensor) -> float:
    """Inner product of two vectors (P,), summed in float64."""
    return float(vectors.inner(a, b))


def norm(a: Tensor) -> float:
    """Euclidean norm of a vector (P,), summed as `domainbed.gradients.vectors.norm`."""
    return float(vectors.norm(a))


def gaussian(like: Tensor, counters: tuple[int, ...]) -> Tensor:
    """Standard normal numbers of the shape, dtype and device of `like`: the same on each device."""
    draws = torch.Generator().manual_seed(counter_seed(*counters))
    drawn = torch.empty(like.shape, dtype=like.dtype).normal_(generator=draws)
    return drawn.to(like.device)


def signs(like: Tensor, counters: tuple[int, ...]) -> Tensor:
    """Numbers +1 and -1, equally likely, of the shape, dtype and device of `like` (Rademacher)."""
    draws = torch.Generator().manual_seed(counter_seed(*counters))
    drawn = torch.empty(like.shape, dtype=like.dtype).bernoulli_(0.5, generator=draws)
    return drawn.mul_(2).sub_(1).to(like.device)

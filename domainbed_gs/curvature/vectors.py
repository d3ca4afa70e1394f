"""Sums over long vectors, in float64 without a float64 copy of them, and random vectors by counters."""

from __future__ import annotations

import math

import torch
from torch import Tensor

from domainbed.seeds import counter_seed

_BLOCKS = {"cpu": 2**16, "cuda": 2**24}
"""Type of device -> components of a float64 copy: on a CPU it should fit into the cache."""


def dot(a: Tensor, b: Tensor) -> float:
    """Inner product of two vectors (P,), summed in float64."""
    total = torch.zeros((), dtype=torch.float64, device=a.device)
    block = _BLOCKS.get(a.device.type, 2**20)
    for x, y in zip(a.split(block), b.split(block), strict=True):
        total += x.double() @ y.double()
    return float(total)


def norm(a: Tensor) -> float:
    """Euclidean norm of a vector (P,), summed in float64."""
    return math.sqrt(dot(a, a))


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

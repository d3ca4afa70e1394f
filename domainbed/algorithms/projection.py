"""Distance between two networks of the same kind, and projection onto a ball around one of them."""

from __future__ import annotations

from typing import TypeVar

import torch
from torch import Tensor, nn

M = TypeVar("M", bound=nn.Module)


def distance(h1: nn.Module, h2: nn.Module) -> Tensor:
    """Euclidean distance (0-d) of the two state dicts, buffers included."""
    other = h2.state_dict()
    parts = [(value - other[name]).double().flatten() for name, value in h1.state_dict().items()]
    length: Tensor = torch.linalg.vector_norm(torch.cat(parts))
    return length


@torch.no_grad()
def proj(delta: float, adv_h: M, h: nn.Module) -> M:
    """Move `adv_h`, in place, to the nearest point of the ball of radius `delta` around `h`; returns it.

    One that lies in the ball stays as it is, to the bit. Nothing waits for the device.
    """
    length = distance(adv_h, h)
    for moved, centre in zip(adv_h.parameters(), h.parameters(), strict=True):
        on_the_ball = centre + (delta / length).to(moved.dtype) * (moved - centre)
        moved.copy_(torch.where(length <= delta, moved, on_the_ball))
    return adv_h

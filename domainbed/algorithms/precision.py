"""Where a computation must not be rounded to bfloat16."""

from __future__ import annotations

import torch
from torch import Tensor


def full_precision(like: Tensor) -> torch.autocast:
    """A context without automatic mixed precision on the device of `like`.

    For differences of nearly equal numbers, such as variances and distances. Inputs that came out of a
    layer under autocast are bfloat16 still: see `at_least_float32`.
    """
    return torch.autocast(like.device.type, enabled=False)


def at_least_float32(tensor: Tensor) -> Tensor:
    """`tensor`, in float32 if its type has less precision; not a copy otherwise."""
    return tensor.to(torch.promote_types(tensor.dtype, torch.float32))

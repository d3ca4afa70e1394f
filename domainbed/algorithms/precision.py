"""Numerical precision under automatic mixed precision."""

from __future__ import annotations

import torch
from torch import Tensor


def full_precision(like: Tensor) -> torch.autocast:
    """A context manager that disables autocast on the device of `like`.

    For differences of nearly equal numbers, such as variances and distances. Tensors from layers under
    autocast are still bfloat16; convert them with `at_least_float32`.
    """
    return torch.autocast(like.device.type, enabled=False)


def at_least_float32(tensor: Tensor) -> Tensor:
    """`tensor` converted to float32 if its dtype has less precision; otherwise `tensor` itself."""
    return tensor.to(torch.promote_types(tensor.dtype, torch.float32))

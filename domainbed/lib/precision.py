"""Where a computation must not be rounded to bfloat16."""

from __future__ import annotations

import torch
from torch import Tensor


def full_precision(like: Tensor) -> torch.autocast:
    """A context without automatic mixed precision on the device of `like`.

    For differences of nearly equal numbers, such as variances and distances. Inputs that came out of a
    layer under autocast are bfloat16 still: convert them with `.float()` (no copy in full precision).
    """
    return torch.autocast(like.device.type, enabled=False)

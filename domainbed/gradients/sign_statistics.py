"""How far K gradients agree, component by component, from one look at each of them."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

import torch
from torch import Tensor

_INT8_HOLDS = 127


@dataclass(frozen=True)
class SignStatistics:
    """What K gradients (P,) have in common.

    Attributes:
        mean: their mean (P,).
        agreement: |mean of the signs| (P,), in [0, 1]; the sign of 0 is 0.
        variance: unbiased variance (P,), NaN for one gradient; None if it was not asked for.
    """

    mean: Tensor
    agreement: Tensor
    variance: Tensor | None


def sign_statistics(gradients: Iterable[Tensor], variance: bool = False) -> SignStatistics:
    """Statistics of K gradients (P,), each looked at once (gradient surgery specification, D.4).

    While they come, a running sum and a sum of signs in one byte a component are held; for the variance
    also the sum of squared deviations from the running mean (Welford 1962), which does not cancel.
    """
    iterator = iter(gradients)
    total = next(iterator).clone()
    signs = total.sign().to(torch.int8)
    deviations = torch.zeros_like(total) if variance else None
    count = 1
    for gradient in iterator:
        if deviations is not None:
            deviation = gradient - total / count
            deviations.addcmul_(deviation, deviation, value=count / (count + 1))
        count += 1
        if count > _INT8_HOLDS:
            signs = signs.to(torch.int32)
        total += gradient
        signs += gradient.sign().to(torch.int8)
    return SignStatistics(
        mean=total / count,
        agreement=signs.abs().to(total.dtype) / count,
        variance=None if deviations is None else deviations / (count - 1),
    )

"""Trace of a Hessian by random probes (Hutchinson 1990)."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from domainbed_gs.curvature.losses import Loss
from domainbed_gs.curvature.vectors import dot, signs


@dataclass(frozen=True)
class Estimate:
    """A mean over probes.

    Attributes:
        mean: the mean.
        error: its standard error (ddof=1); NaN for a single probe.
    """

    mean: float
    error: float


def estimate(values: NDArray[np.float64]) -> Estimate:
    """Mean and standard error of `values` (n,), one for each probe."""
    error = float(values.std(ddof=1)) / math.sqrt(len(values)) if len(values) > 1 else math.nan
    return Estimate(float(values.mean()), error)


def quadratic_forms(
    losses: Sequence[Loss],
    parameters: Tensor,
    probes: int,
    counters: tuple[int, ...],
    advance: Callable[[], None] = lambda: None,
) -> NDArray[np.float64]:
    """z^T H z of each loss for the same random vectors z of signs; the mean over them estimates a trace.

    The Hessian of a mean of losses is the mean of theirs, so its forms are means of these columns.

    Args:
        losses: L losses.
        parameters: (P,).
        probes: number n of vectors.
        counters: counters of their random numbers; that of the vector is added.
        advance: called after each Hessian-vector product.

    Returns: (n, L).
    """
    forms = np.empty((probes, len(losses)))
    product = torch.empty_like(parameters)
    for number in range(probes):
        z = signs(parameters, (*counters, number))
        for position, loss in enumerate(losses):
            loss.add_hessian_product(parameters, z, product.zero_())
            forms[number, position] = dot(z, product)
            advance()
        del z  # before the next one is drawn
    return forms

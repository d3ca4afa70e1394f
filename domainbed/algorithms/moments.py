"""Unbiased second moments of samples, never in less than float32."""

from __future__ import annotations

from torch import Tensor

from domainbed.algorithms.precision import at_least_float32, full_precision
from domainbed.errors import UsageError


def variance(samples: Tensor) -> Tensor:
    """Variance of each feature, shape (...), over the first dimension of (n, ...).

    Raises: UsageError for fewer than two samples.
    """
    _check(samples, "a variance")
    return at_least_float32(samples).var(dim=0)


def mean(samples: Tensor) -> Tensor:
    """Mean of each feature, shape (...), over the first dimension of (n, ...)."""
    return at_least_float32(samples).mean(dim=0)


def covariance(samples: Tensor) -> Tensor:
    """Covariance matrix (d, d) of samples (n, d).

    Raises: UsageError for fewer than two samples.
    """
    _check(samples, "a covariance")
    with full_precision(samples):
        centred = at_least_float32(samples) - mean(samples)
        return centred.T @ centred / (len(samples) - 1)


def _check(samples: Tensor, what: str) -> None:
    if len(samples) < 2:
        raise UsageError(f"{what} needs 2 or more samples, not {len(samples)}; choose a larger batch_size")

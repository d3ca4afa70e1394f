"""Moments of samples, and discrepancies between sets of samples.

The discrepancies take K sets at once and return the mean over the K(K-1)/2 pairs, so that what depends on one
set (its kernel or its covariance) is computed once. All results are float32 or better, also under autocast.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from domainbed.algorithms.precision import at_least_float32, full_precision
from domainbed.errors import UsageError

GAMMAS = (0.001, 0.01, 0.1, 1.0, 10.0, 100.0, 1000.0)
"""Inverse widths of the Gaussians whose sum is the kernel of MMD and CausIRL."""


def mean(samples: Tensor) -> Tensor:
    """Mean over the first dimension of samples (n, ...), of shape (...)."""
    return at_least_float32(samples).mean(dim=0)


def variance(samples: Tensor) -> Tensor:
    """Unbiased variance over the first dimension of samples (n, ...), of shape (...).

    Raises: UsageError for fewer than two samples.
    """
    _require_two(samples, "a variance")
    return at_least_float32(samples).var(dim=0)


def covariance(samples: Tensor) -> Tensor:
    """Unbiased covariance matrix (d, d) of samples (n, d).

    Raises: UsageError for fewer than two samples.
    """
    _require_two(samples, "a covariance")
    with full_precision(samples):
        centred = at_least_float32(samples) - mean(samples)
        return centred.T @ centred / (len(samples) - 1)


def _require_two(samples: Tensor, statistic: str) -> None:
    if len(samples) < 2:
        raise UsageError(
            f"{statistic} needs 2 or more samples, not {len(samples)}; choose a larger batch_size"
        )


def squared_distances(x: Tensor, y: Tensor) -> Tensor:
    """Squared Euclidean distances (n, m) of samples x (n, d) and y (m, d), at least 1e-30.

    Computed as |y|^2 - 2 x.y + |x|^2, a difference of nearly equal numbers, so in float32 or better.
    """
    dtype = torch.promote_types(torch.promote_types(x.dtype, y.dtype), torch.float32)
    with full_precision(x):
        x, y = x.to(dtype), y.to(dtype)
        x_norms, y_norms = (each.square().sum(dim=1) for each in (x, y))
        return (torch.addmm(y_norms, x, y.T, alpha=-2) + x_norms[:, None]).clamp_min(1e-30)


def gaussian_kernel(x: Tensor, y: Tensor, gammas: Sequence[float] = GAMMAS) -> Tensor:
    """Kernel matrix (n, m) of x (n, d) and y (m, d): the sum over `gammas` of exp(-gamma |x - y|^2)."""
    distances = squared_distances(x, y)
    kernel = torch.zeros_like(distances)
    for gamma in gammas:
        kernel = kernel + torch.exp(-gamma * distances)
    return kernel


def gaussian_mmd(samples: Sequence[Tensor], gammas: Sequence[float] = GAMMAS) -> Tensor:
    """Squared maximum mean discrepancy (Gretton et al. 2012, equation 5), mean over pairs of sets; 0-d.

    This is the biased estimate, whose means include each point paired with itself. Apart from rounding errors
    it is never negative, and 0 for equal sets. It is also 0 for fewer than two sets. Memory: a few matrices
    (N, N) for each of `gammas`, where N is the total number of samples.

    Args:
        samples: sets of samples (n_k, d).
        gammas: inverse widths of the kernel's Gaussians.
    """
    k = len(samples)
    if k < 2:
        return samples[0].new_zeros(())
    pooled = torch.cat(list(samples))
    kernel = gaussian_kernel(pooled, pooled, gammas)
    # Row i averages over the samples of set i.
    average = torch.block_diag(*(kernel.new_full((1, len(x)), 1 / len(x)) for x in samples))
    with full_precision(kernel):
        inner = average @ kernel @ average.T
    own = inner.diagonal()
    distances: Tensor = own[:, None] + own - 2 * inner
    return distances.sum() / (k * (k - 1))


def moment_distance(samples: Sequence[Tensor]) -> Tensor:
    """Difference of means and covariances, as in upstream's CORAL, mean over pairs of sets; 0-d.

    For one pair: the mean squared difference of the d means, plus the mean squared difference of the d x d
    entries of the unbiased covariances. 0 for fewer than two sets. Memory: K matrices (d, d).

    Args:
        samples: sets of samples (n_k, d).

    Raises: UsageError for a set of one sample.
    """
    if len(samples) < 2:
        return samples[0].new_zeros(())
    moments = (torch.stack([statistic(x) for x in samples]) for statistic in (mean, covariance))
    # The mean of (a_i - a_j)^2 over pairs is twice the unbiased variance of a.
    return torch.stack([2 * moment.var(dim=0).mean() for moment in moments]).sum()

"""How far apart distributions are, judged by samples: kernel mean embeddings, or means and covariances.

Both discrepancies take K sets of samples at once and give the mean over the K(K-1)/2 pairs, so that what
belongs to one set (its kernel, its covariance) is computed once and not in every pair.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from domainbed.algorithms.moments import covariance, mean
from domainbed.algorithms.precision import full_precision

GAMMAS = (0.001, 0.01, 0.1, 1.0, 10.0, 100.0, 1000.0)
"""Inverse widths whose Gaussians add up to the kernel of MMD and CausIRL."""


def squared_distances(x: Tensor, y: Tensor) -> Tensor:
    """Squared Euclidean distances (n, m) of samples x (n, d) and y (m, d), at least 1e-30.

    In float32 or better: |y|^2 - 2 x.y + |x|^2 is a difference of nearly equal numbers.
    """
    dtype = torch.promote_types(torch.promote_types(x.dtype, y.dtype), torch.float32)
    with full_precision(x):
        x, y = x.to(dtype), y.to(dtype)
        x_norms, y_norms = (each.square().sum(dim=1) for each in (x, y))
        return (torch.addmm(y_norms, x, y.T, alpha=-2) + x_norms[:, None]).clamp_min(1e-30)


def gaussian_kernel(x: Tensor, y: Tensor, gammas: Sequence[float] = GAMMAS) -> Tensor:
    """Kernel matrix (n, m): the sum over `gammas` of exp(-gamma d^2), for x (n, d) and y (m, d)."""
    distances = squared_distances(x, y)
    kernel = torch.zeros_like(distances)
    for gamma in gammas:
        kernel = kernel + torch.exp(-gamma * distances)
    return kernel


def gaussian_mmd(samples: Sequence[Tensor], gammas: Sequence[float] = GAMMAS) -> Tensor:
    """Squared maximum mean discrepancy (Gretton et al. 2012), 0-d: the mean over pairs of `samples` (n_k, d).

    Means over all pairs of points, each point with itself included: biased, never negative but for
    rounding, 0 for equal samples. 0 if there are fewer than two sets. Holds a few matrices (N, N), N the
    number of all samples, for each of `gammas`.
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
    """Difference of means and covariances (CORAL), 0-d: the mean over pairs of `samples` (n_k, d).

    For one pair: the mean over d features of the squared difference of means, plus the mean over the d x d
    entries of that of unbiased covariances. 0 if there are fewer than two sets. Holds K matrices (d, d).

    Raises: UsageError for a set of one sample, which has no covariance.
    """
    if len(samples) < 2:
        return samples[0].new_zeros(())
    moments = (torch.stack([statistic(x) for x in samples]) for statistic in (mean, covariance))
    # Over pairs, the mean of (a_i - a_j)^2 is twice the unbiased variance of a.
    return torch.stack([2 * moment.var(dim=0).mean() for moment in moments]).sum()

"""Cosine and sign agreement of pairs of per-sample gradients, within and between environments."""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray
from torch import Tensor, nn

from domainbed_gs.similarity.ghost import Pairwise, pairwise

KINDS = ("within", "between")
"""Kinds of pairs: two samples of one environment, or of two environments."""

STATISTICS = ("pairs", "cosine", "cosine_se", "agreement", "agreement_se", "zeros")
"""Statistics of each kind of pairs."""

COLUMNS = (
    "samples",
    "skipped",
    "consensus",
    "zeros",
    *(f"{kind}_{statistic}" for kind in KINDS for statistic in STATISTICS),
)
"""Names of all numbers of one measurement; see `similarities`."""


def similarities(network: nn.Module, x: Tensor, y: Tensor, sizes: Sequence[int]) -> dict[str, float]:
    """Similarities of the gradients of the samples' own losses (ICCV 2021 paper, section 4.3).

    Args:
        network: maps inputs to logits, each sample independently of the others.
        x: distinct inputs (N, *input_shape), grouped by environment.
        y: int64 labels (N,).
        sizes: number of samples of each of the K environments.

    Returns: a dict with the keys `COLUMNS`:
        samples: N.
        skipped: number of samples with a zero gradient, whose cosine is undefined; no pair includes them.
        consensus: share of the P components in which the mean gradients of all K environments have the same
            sign (the agreement function of section 3.2 for these minibatches); 2^(1-K) (1 - zeros) by chance.
        zeros: share of the P components in which the mean gradient of an environment is 0.
        within_*: statistics of the pairs of samples of the same environment.
        between_*: statistics of the pairs of samples of different environments.
        *_pairs: number of pairs.
        *_cosine: mean cosine similarity.
        *_agreement: mean share of components with equal signs, (1 - zeros) / 2 by chance. A zero equals no
            sign.
        *_zeros: mean share of components in which at least one of the two gradients is 0.
        *_cosine_se, *_agreement_se: standard errors of these means over pairs (ddof=1), as if pairs that
            share a sample were independent.
        Means of too few pairs, and their standard errors, are NaN.

    Raises: UsageError if the network couples samples, or has an unsupported layer.
    """
    sums = pairwise(network, x, y, sizes)
    cosines, agreement, zeros, usable = _of_pairs(sums)
    environment = np.repeat(np.arange(len(sizes)), sizes)
    first, second = np.triu_indices(len(x), k=1)
    usable = usable[first] & usable[second]
    same = environment[first] == environment[second]
    result: dict[str, float] = {
        "samples": len(x),
        "skipped": int((sums.gram.diagonal() == 0).sum()),
        "consensus": float(sums.consensus) / sums.components,
        "zeros": float(sums.zeros) / sums.components,
    }
    for kind, of_kind in zip(KINDS, (same & usable, ~same & usable), strict=True):
        result[f"{kind}_pairs"] = int(of_kind.sum())
        for name, values in (("cosine", cosines), ("agreement", agreement)):
            mean, error = mean_and_error(values[first, second][of_kind])
            result |= {f"{kind}_{name}": mean, f"{kind}_{name}_se": error}
        result[f"{kind}_zeros"], _ = mean_and_error(zeros[first, second][of_kind])
    return result


def mean_and_error(values: NDArray[np.float64]) -> tuple[float, float]:
    """Mean of `values` (n,) and its standard error (ddof=1); NaN if n is too small."""
    mean = float(values.mean()) if len(values) else math.nan
    error = float(values.std(ddof=1)) / math.sqrt(len(values)) if len(values) > 1 else math.nan
    return mean, error


def _of_pairs(
    sums: Pairwise,
) -> tuple[NDArray[np.float64], NDArray[np.float64], NDArray[np.float64], NDArray[np.bool_]]:
    """Cosines, shares of equal signs and of zeros (N, N); and whether each gradient (N,) is non-zero."""
    gram: NDArray[np.float64] = sums.gram.cpu().numpy()
    norms = np.sqrt(gram.diagonal())
    usable: NDArray[np.bool_] = norms > 0
    divisors = np.where(usable, norms, 1.0)
    equal, nonzero = (counts.cpu().numpy() / sums.components for counts in (sums.equal, sums.nonzero))
    return gram / np.outer(divisors, divisors), equal, 1 - nonzero, usable

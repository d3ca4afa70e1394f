"""Cosines and sign agreement of pairs of per-sample gradients, within and between environments."""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray
from torch import Tensor, nn

from domainbed_gs.similarity.ghost import Pairwise, pairwise

KINDS = ("within", "between")
COLUMNS = (
    *("samples", "skipped", "consensus"),
    *(
        f"{kind}_{name}"
        for kind in KINDS
        for name in ("pairs", "cosine", "cosine_se", "agreement", "agreement_se")
    ),
)
"""Names of what is measured at one step; see `similarities`."""


def similarities(network: nn.Module, x: Tensor, y: Tensor, sizes: Sequence[int]) -> dict[str, float]:
    """How alike the gradients of single samples' losses are (ICCV 2021 paper, section 4.3).

    Args:
        network: maps inputs to logits, each sample for itself.
        x: inputs (N, *input_shape), those of the K environments one after the other; no sample twice.
        y: int64 labels (N,).
        sizes: number of samples of each environment.

    Returns:
        samples: N;
        skipped: how many of them have a gradient of 0, which no cosine is defined for: they are left out
            of all pairs;
        consensus: share of the P components in which the mean gradients of all K environments have the
            same sign, which is the paper's function (section 3.2) of minibatches such as these; 2^(1-K) by
            chance;
        within_..., between_...: of the pairs of two samples of one environment, and of two environments,
            all environments and all pairs of them pooled: the number of `pairs`; the mean `cosine`; the mean
            `agreement`, the share of components in which the two signs are the same (1/2 by chance). A sign
            of 0 agrees with none. `..._se` is the standard error of the mean over pairs (ddof=1), as if
            pairs that share a sample were independent. nan where there are too few pairs.

    Raises: UsageError if the network couples samples, or has a layer that this can't be done for.
    """
    found = pairwise(network, x, y, sizes)
    cosines, agreement, usable = _of_pairs(found)
    environment = np.repeat(np.arange(len(sizes)), sizes)
    first, second = np.triu_indices(len(x), k=1)
    usable = usable[first] & usable[second]
    same = environment[first] == environment[second]
    result: dict[str, float] = {
        "samples": len(x),
        "skipped": int((found.gram.diagonal() == 0).sum()),
        "consensus": float(found.consensus) / found.components,
    }
    for kind, of_kind in zip(KINDS, (same & usable, ~same & usable), strict=True):
        result[f"{kind}_pairs"] = int(of_kind.sum())
        for name, values in (("cosine", cosines), ("agreement", agreement)):
            mean, error = mean_and_error(values[first, second][of_kind])
            result |= {f"{kind}_{name}": mean, f"{kind}_{name}_se": error}
    return result


def mean_and_error(values: NDArray[np.float64]) -> tuple[float, float]:
    """Mean of (n,) and its standard error (ddof=1); nan where n is too small."""
    mean = float(values.mean()) if len(values) else math.nan
    error = float(values.std(ddof=1)) / math.sqrt(len(values)) if len(values) > 1 else math.nan
    return mean, error


def _of_pairs(found: Pairwise) -> tuple[NDArray[np.float64], NDArray[np.float64], NDArray[np.bool_]]:
    """Cosines (N, N), shares of equal signs (N, N), and which samples (N,) have a gradient that is not 0."""
    gram: NDArray[np.float64] = found.gram.cpu().numpy()
    norms = np.sqrt(gram.diagonal())
    usable: NDArray[np.bool_] = norms > 0
    divisors = np.where(usable, norms, 1.0)
    return gram / np.outer(divisors, divisors), found.equal.cpu().numpy() / found.components, usable

"""IMTL-G (Liu et al. 2021, "Towards impartial multi-task learning", ICLR)."""

from __future__ import annotations

import numpy as np

from domainbed_gs.surgery.gram import NoDirection

_LARGEST = 100.0  # sum of the weights' absolute values, where 1 is that of a mean


def imtlg_weights(gram: np.ndarray) -> np.ndarray:
    """IMTL-G (Liu et al. 2021, ICLR, section 3.2): d has equal projections on all gradients' directions.

    w is proportional to G^-1 (|g_1|, ..., |g_K|) and sums to 1; weights may be negative, and so may the
    common projection be. Where G is singular its pseudo-inverse stands for the inverse, as in Quinton & Rey
    2024 (arXiv 2406.16232).

    Args:
        gram: (K, K) float64.

    Returns: (K,) weights w; the update is sum_k w_k g_k.

    Raises: NoDirection if all gradients are 0, or if the weights before normalisation nearly cancel, so
        that the normalised ones would be large (above 100 in sum of absolute values).
    """
    tolerance = len(gram) * np.finfo(np.float64).eps
    weights: np.ndarray = np.linalg.pinv(gram, rcond=tolerance, hermitian=True) @ np.sqrt(np.diag(gram))
    if np.abs(weights).sum() >= _LARGEST * abs(weights.sum()):
        raise NoDirection("IMTL-G's weights can't be normalised to sum 1")
    weights /= weights.sum()
    return weights

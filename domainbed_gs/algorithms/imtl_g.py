"""IMTL-G (Liu et al. 2021, "Towards impartial multi-task learning", ICLR)."""

from __future__ import annotations

import numpy as np

from domainbed.algorithms import REGISTRY
from domainbed.gradients.gram import NoDirection
from domainbed_gs.algorithms.surgery import GramSurgery

_LARGEST = 100.0  # sum of the weights' absolute values, where 1 is that of a mean


@REGISTRY.register()
class IMTLG(GramSurgery):
    """IMTL-G (Liu et al. 2021, section 3.2): the direction with equal projections on all gradients.

    Projections are on their unit vectors: w is proportional to G^-1 (|g_1|, ..., |g_K|) and sums to
    1; weights may be negative, and so may the common projection be. Where G is singular its pseudo-
    inverse stands for the inverse, as in Quinton and Rey 2024 (arXiv 2406.16232). The mean stands
    in (`fallback`) if all gradients are 0, or if the weights before normalisation nearly cancel, so
    that the normalised ones would be large. The loss balancing of the same paper, IMTL-L, is no
    part of it.
    """

    def weights(self, gram: np.ndarray) -> np.ndarray:
        tolerance = len(gram) * np.finfo(np.float64).eps
        w: np.ndarray = np.linalg.pinv(gram, rcond=tolerance, hermitian=True) @ np.sqrt(np.diag(gram))
        if np.abs(w).sum() >= _LARGEST * abs(w.sum()):
            raise NoDirection("IMTL-G's weights cannot be normalised to sum 1")
        w /= w.sum()
        return w

"""Aligned-MTL (Senushkin et al. 2023, "Independent component alignment for multi-task learning", CVPR)."""

from __future__ import annotations

import numpy as np

from domainbed.algorithms import REGISTRY
from domainbed.hparams import Hparam, const
from domainbed_gs.algorithms.surgery import GramSurgery


@REGISTRY.register()
class AlignedMTL(GramSurgery):
    """Aligned-MTL (Senushkin et al. 2023, algorithm 1): the mean of gradients made orthogonal.

    All singular values of the gradients' matrix become equal; components whose singular value is 0
    but for rounding are left out. With G = V L V^T the weights are sqrt(s) V L^(-1/2) V^T (1/K, ..., 1/K).
    `aligned_scale` chooses s, the common eigenvalue: the smallest of those kept (min), their median (the
    lower one of two), or their mean (rmse). The plain mean if all gradients are 0.
    """

    HPARAMS = {
        "aligned_scale": Hparam(
            "min",
            const("min"),
            "the common eigenvalue: the smallest (min), median, or mean (rmse)",
            choices=("min", "median", "rmse"),
        ),
    }

    def weights(self, gram: np.ndarray) -> np.ndarray:
        mean = np.full(len(gram), 1 / len(gram))
        values, vectors = np.linalg.eigh(gram)
        kept = values > values[-1] * len(gram) * np.finfo(np.float64).eps
        values, vectors = values[kept], vectors[:, kept]
        if len(values) == 0:
            return mean
        scales = {"min": values[0], "median": values[(len(values) - 1) // 2], "rmse": values.mean()}
        scale = scales[self.hparams["aligned_scale"]]
        w: np.ndarray = vectors @ ((vectors.T @ mean) * np.sqrt(scale / values))
        return w

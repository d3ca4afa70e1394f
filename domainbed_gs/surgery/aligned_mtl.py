"""Aligned-MTL (Senushkin et al. 2023, "Independent component alignment for multi-task learning", CVPR)."""

from __future__ import annotations

from typing import Literal

import numpy as np

Scale = Literal["min", "median", "rmse"]


def aligned_mtl_weights(gram: np.ndarray, mode: Scale = "min") -> np.ndarray:
    """Aligned-MTL (Senushkin et al., CVPR 2023, algorithm 1): the mean of gradients made orthogonal.

    The gradients' matrix gets singular values that are all equal; components whose singular value is 0
    but for rounding are left out. With G = V L V^T the weights are sqrt(s) V L^(-1/2) V^T (1/K, ..., 1/K).

    Args:
        gram: (K, K) float64.
        mode: s, the common eigenvalue: the smallest of those kept, their median (the lower one of two), or
            their mean ("rmse", the mean square of the singular values).

    Returns: (K,) weights w; the update is sum_k w_k g_k. 1/K each if all gradients are 0.
    """
    weights = np.full(len(gram), 1 / len(gram))
    values, vectors = np.linalg.eigh(gram)
    kept = values > values[-1] * len(gram) * np.finfo(np.float64).eps
    values, vectors = values[kept], vectors[:, kept]
    if len(values) == 0:
        return weights
    scale = {"min": values[0], "median": values[(len(values) - 1) // 2], "rmse": values.mean()}[mode]
    aligned: np.ndarray = vectors @ ((vectors.T @ weights) * np.sqrt(scale / values))
    return aligned

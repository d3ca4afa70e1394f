"""UPGrad (Quinton and Rey 2024, arXiv 2406.16232)."""

from __future__ import annotations

import numpy as np

from domainbed.algorithms import REGISTRY
from domainbed_gs.algorithms.active_sets import has_gradient, mean_weights
from domainbed_gs.algorithms.dual_proj import dual_cone_weights
from domainbed_gs.algorithms.surgery import GramSurgery


@REGISTRY.register()
class UPGrad(GramSurgery):
    """UPGrad (Quinton and Rey 2024): the mean of the gradients, each first moved to conflict with none.

    As little as it takes: (1/K) sum_i of g_i projected onto {d : d.g_k >= 0 for all k}. Solved exactly,
    without regularisation and at any scale, where the authors' code adds 1e-4 I to the inner
    products and takes a trace below 1e-4 for 0.
    """

    def weights(self, gram: np.ndarray) -> np.ndarray:
        if not has_gradient(gram):
            return mean_weights(len(gram))
        w: np.ndarray = dual_cone_weights(gram, np.eye(len(gram))).sum(axis=0) / len(gram)
        return w

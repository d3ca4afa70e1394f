"""UPGrad (Quinton and Rey 2024)."""

from __future__ import annotations

import numpy as np

from domainbed.algorithms import REGISTRY
from domainbed.algorithms.facts import Facts
from domainbed_gs.algorithms.active_sets import has_gradient, mean_weights
from domainbed_gs.algorithms.dual_proj import dual_cone_weights
from domainbed_gs.algorithms.surgery import GramSurgery


def upgrad_weights(gram: np.ndarray, tolerance: float = 0.0) -> np.ndarray:
    """The mean of the K gradients, each projected onto {d : d.g_k >= 0 for all k}.

    Args:
        gram: (K, K) float64.
        tolerance: see `dual_cone_weights`.

    Returns: (K,) weights; 1/K if all gradients are zero, or one is not finite.
    """
    if not has_gradient(gram):
        return mean_weights(len(gram))
    w: np.ndarray = dual_cone_weights(gram, np.eye(len(gram)), tolerance).sum(axis=0) / len(gram)
    return w


@REGISTRY.register()
class UPGrad(GramSurgery):
    """UPGrad (Quinton and Rey 2024): the mean of the gradients, each first moved to conflict with none.

    As little as it takes: (1/K) sum_i of g_i projected onto {d : d.g_k >= 0 for all k}. Added to the
    cosines of gradients that are opposite but for rounding is at most the square of `tolerance`.
    """

    FACTS = Facts(
        year=2024,
        paper="Quinton and Rey, Jacobian descent for multi-objective optimization, arXiv 2406.16232",
        idea="The mean of the gradients, each first moved to conflict with none",
        memory="K + 1",
        cost="Less memory in a joint pass.",
        one_environment="ERM",
        departures=(
            "Solved exactly at any scale. The authors' code adds 1e-4 I to the inner products, and takes "
            "a trace below 1e-4 for 0."
        ),
    )

    def weights(self, gram: np.ndarray) -> np.ndarray:
        return upgrad_weights(gram, self.tolerance)

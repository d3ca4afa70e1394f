"""PCGrad (Yu et al. 2020, "Gradient surgery for multi-task learning")."""

from __future__ import annotations

import numpy as np

from domainbed.algorithms import REGISTRY
from domainbed.algorithms.facts import Facts
from domainbed.hparams import Hparam, const
from domainbed.seeds import generator
from domainbed_gs.algorithms.surgery import GramSurgery


class PairwiseSurgery(GramSurgery):
    """Base: each environment's gradient is changed by the others, one by one, and the results are summed."""

    SCALE = "sum"
    HPARAMS = {
        "reduction": Hparam(
            "sum", const("sum"), "scale of the combined gradient: sum or mean", choices=("sum", "mean")
        ),
        "order": Hparam(
            "independent",
            const("independent"),
            "order of the others: independent, shared or fixed",
            choices=("independent", "shared", "fixed"),
        ),
    }

    def orders(self, num_environments: int, include_self: bool = False) -> list[list[int]]:
        """For each environment, the others in the order in which it visits them in this update.

        independent: a random order for each (Yu et al. 2020); shared: one permutation for all (the code of
        the ICCV 2021 paper); fixed: ascending.
        """
        rng = generator(self.surgery_seed, self.updates)
        order = self.hparams["order"]
        shared = rng.permutation(num_environments) if order == "shared" else np.arange(num_environments)
        orders = []
        for i in range(num_environments):
            visited = rng.permutation(num_environments) if order == "independent" else shared
            orders.append([int(j) for j in visited if j != i or include_self])
        return orders


@REGISTRY.register()
class PCGrad(PairwiseSurgery):
    """PCGrad (Yu et al. 2020, algorithm 1) over environments: conflicts are projected out, the rest summed.

    Environment i starts from v = g_i and, for each other j in random order with v.g_j < 0, loses its
    component along the original g_j. Inner products are enough: with v = sum_m c_m g_m, v.g_j = (gram c)_j.
    """

    FACTS = Facts(
        year=2020,
        paper="Yu et al., Gradient surgery for multi-task learning, NeurIPS, arXiv 2001.06782",
        idea="Projects each gradient off those that it conflicts with, then sums",
        memory="K + 1",
        cost="Less memory in a joint pass.",
        one_environment="ERM",
        departures=(
            "Each environment visits the others in an order of its own, as in the paper; the ICCV 2021 "
            "code shares one (`order` shared). Some public codes visit an environment itself too "
            "(`include_self`)."
        ),
    )

    HPARAMS = {
        "include_self": Hparam(False, const(False), "an environment visits itself too (some public codes)"),
    }

    def weights(self, gram: np.ndarray) -> np.ndarray:
        total = np.zeros(len(gram))
        for i, order in enumerate(self.orders(len(gram), self.hparams["include_self"])):
            c = np.zeros(len(gram))
            c[i] = 1.0
            for j in order:
                product = gram[j] @ c
                if product < 0:  # then g_j is not 0
                    c[j] -= product / gram[j, j]
            total += c
        return total

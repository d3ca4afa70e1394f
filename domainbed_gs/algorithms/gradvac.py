"""GradVac (Wang et al. 2020, "Gradient vaccine")."""

from __future__ import annotations

from typing import Any

import numpy as np
import torch
from torch import Tensor

from domainbed.algorithms import REGISTRY
from domainbed.algorithms.facts import Facts
from domainbed.hparams import Hparam, log10_uniform
from domainbed_gs.algorithms.pcgrad import PairwiseSurgery
from domainbed_gs.algorithms.ranks import trust


@REGISTRY.register()
class GradVac(PairwiseSurgery):
    """GradVac (Wang et al. 2020, algorithm 1) over environments, the whole network at once.

    As PCGrad, but towards a target cosine: environment i starts from v = g_i and, for each other j with
    cos(v, g_j) below the target, gains the multiple of the original g_j that makes the cosine equal to it.
    Then the target moves to the cosine found, by a share of `gradvac_beta`. With targets of 0, as at the
    first update, this is PCGrad. For the targets, a gradient that is 0 has cosine 0 to all, and so has one of
    which corrections leave rounding alone.
    """

    FACTS = Facts(
        year=2020,
        paper=(
            "Wang et al., Gradient vaccine: Investigating and improving multi-task optimization in "
            "massively multilingual models, arXiv 2010.05874"
        ),
        idea="PCGrad towards a target cosine of each pair, a running mean of those found",
        memory="K + 1",
        cost="Less memory in a joint pass.",
        one_environment="ERM",
        departures="The whole network at once; public code also offers it by layer or tensor.",
    )

    HPARAMS = {
        "gradvac_beta": Hparam(
            0.01, log10_uniform(-3, -0.3), "weight of the newest cosine in the target", at_least=0, at_most=1
        ),
    }
    STATE = ("targets",)

    def __init__(
        self, input_shape: tuple[int, ...], num_classes: int, num_domains: int, hparams: dict[str, Any]
    ) -> None:
        super().__init__(input_shape, num_classes, num_domains, hparams)
        self.targets: Tensor = torch.zeros(num_domains, num_domains, dtype=torch.float64)

    def weights(self, gram: np.ndarray) -> np.ndarray:
        norms = np.sqrt(np.diag(gram))
        targets, tolerance = self.targets.numpy().copy(), self.tolerance
        total = np.zeros(len(gram))
        for i, order in enumerate(self.orders(len(gram))):
            c = np.zeros(len(gram))
            c[i] = 1.0
            for j in order:
                norm = max(float(c @ gram @ c), 0.0) ** 0.5
                cosine = sure = 0.0
                if norm > 0 and norms[j] > 0:
                    cosine = float((gram[j] @ c / (norm * norms[j])).clip(-1, 1))
                    sure = trust(norm / float(np.abs(c) @ norms), tolerance)
                    # The correction grows without bound as the target comes to 1.
                    target = min(float(targets[i, j]), 1 - tolerance)
                    if cosine < target:
                        c[j] += norm / norms[j] * _correction(cosine, target)
                # What corrections leave of a vector may be rounding, whose cosine says nothing.
                targets[i, j] += self.hparams["gradvac_beta"] * (sure * cosine - targets[i, j])
            total += c
        self.targets = torch.from_numpy(targets)
        return total


def _correction(cosine: float, target: float) -> float:
    """How much of a unit vector to add to another one for their cosine to rise to `target`, below 1."""
    return float(target * np.sqrt((1 - cosine**2) / (1 - target**2)) - cosine)

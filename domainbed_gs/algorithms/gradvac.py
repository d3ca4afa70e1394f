"""GradVac (Wang et al. 2020, "Gradient vaccine", arXiv 2010.05874)."""

from __future__ import annotations

from typing import Any

import numpy as np
import torch
from torch import Tensor

from domainbed.algorithms import REGISTRY
from domainbed.hparams import Hparam, log10_uniform
from domainbed_gs.algorithms.pcgrad import PairwiseSurgery

_MARGIN = 1e-6  # cosines are kept this far from -1 and 1, where the correction grows without bound
_NOTHING = 1e-7  # what rounding alone leaves of a gradient, relative to what it was made of


@REGISTRY.register()
class GradVac(PairwiseSurgery):
    """GradVac (Wang et al. 2020, algorithm 1) over environments, the whole network at once.

    As PCGrad, but towards a target cosine: environment i starts from v = g_i and, for each other j with
    cos(v, g_j) below the target, gains the multiple of the original g_j that makes the cosine equal to it.
    Then the target moves to the cosine found, by a share of `gradvac_beta`. With targets of 0, as at the
    first update, this is PCGrad. A gradient that is 0 has cosine 0 to all.
    """

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
        targets = self.targets.numpy().copy()
        total = np.zeros(len(gram))
        for i, order in enumerate(self.orders(len(gram))):
            c = np.zeros(len(gram))
            c[i] = 1.0
            for j in order:
                norm = max(float(c @ gram @ c), 0.0) ** 0.5
                defined = norm > _NOTHING * (np.abs(c) @ norms) and norms[j] > 0
                cosine = float(gram[j] @ c / (norm * norms[j])) if defined else 0.0
                if defined and cosine < targets[i, j]:
                    c[j] += norm / norms[j] * _correction(cosine, targets[i, j])
                targets[i, j] += self.hparams["gradvac_beta"] * (cosine - targets[i, j])
            total += c
        self.targets = torch.from_numpy(targets)
        return total


def _correction(cosine: float, target: float) -> float:
    """How much of a unit vector to add to another one for their cosine to rise to `target`."""
    low, high = np.clip((cosine, target), _MARGIN - 1, 1 - _MARGIN)
    return float(high * np.sqrt((1 - low**2) / (1 - high**2)) - low)

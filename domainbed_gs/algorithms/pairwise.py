"""Gram methods that take each environment through the others in random order: PCGrad and GradVac."""

from __future__ import annotations

from typing import Any

import numpy as np
import torch
from torch import Tensor

from domainbed.errors import UsageError, check_choice
from domainbed.hparams import Hparam, const, log10_uniform
from domainbed.seeds import generator
from domainbed_gs import surgery
from domainbed_gs.algorithms.base import Scale
from domainbed_gs.algorithms.gram import GramSurgery


class PairwiseSurgery(GramSurgery):
    """Base: each environment's gradient is changed by one other after the other, and the results summed."""

    HPARAMS = {
        "reduction": Hparam("sum", const("sum"), "scale of the combined gradient: sum or mean"),
        "order": Hparam("independent", const("independent"), "of projections: independent, shared, fixed"),
    }
    scale: Scale = "sum"

    def __init__(
        self, input_shape: tuple[int, ...], num_classes: int, num_domains: int, hparams: dict[str, Any]
    ) -> None:
        check_choice("hyper-parameter order is", hparams["order"], ("independent", "shared", "fixed"))
        super().__init__(input_shape, num_classes, num_domains, hparams)

    def orders(self, num_environments: int, include_self: bool = False) -> list[list[int]]:
        """Which environments each one visits in this update, in order."""
        rng = generator(self.surgery_seed, self.updates)
        return surgery.pcgrad_orders(num_environments, rng, self.hparams["order"], include_self)


class PCGrad(PairwiseSurgery):
    """PCGrad (Yu et al. 2020, arXiv 2001.06782) over environments, as in the ICCV 2021 paper.

    Each environment's gradient is projected onto the normal plane of those it conflicts with, in random
    order; the results are summed. Done on the K x K inner products; holds the K gradients.
    """

    HPARAMS = {
        "include_self": Hparam(False, const(False), "an environment visits itself too (some public codes)"),
    }

    def weights(self, gram: np.ndarray) -> np.ndarray:
        return surgery.pcgrad_weights(gram, self.orders(len(gram), self.hparams["include_self"]))


class GradVac(PairwiseSurgery):
    """GradVac (Wang et al. 2020, arXiv 2010.05874) over environments, the whole network at once.

    As PCGrad, but an environment's gradient is turned towards another one until their cosine is as high as
    it used to be: the moving average of the cosines found before, 0 at first. The results are summed.
    """

    HPARAMS = {
        "gradvac_beta": Hparam(
            0.01, log10_uniform(-3, -0.3), "weight of the newest cosine in the target", at_least=0
        ),
    }
    STATE = ("targets",)

    def __init__(
        self, input_shape: tuple[int, ...], num_classes: int, num_domains: int, hparams: dict[str, Any]
    ) -> None:
        if not 0 <= hparams["gradvac_beta"] <= 1:
            raise UsageError(f"hyper-parameter gradvac_beta is from 0 to 1, not {hparams['gradvac_beta']}")
        super().__init__(input_shape, num_classes, num_domains, hparams)
        self.targets: Tensor = torch.zeros(num_domains, num_domains, dtype=torch.float64)

    def weights(self, gram: np.ndarray) -> np.ndarray:
        weights, targets = surgery.gradvac_weights(
            gram, self.orders(len(gram)), self.targets.numpy(), self.hparams["gradvac_beta"]
        )
        self.targets = torch.from_numpy(targets)
        return weights

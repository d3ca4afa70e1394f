"""A rule by name: any of our Gram methods, or an aggregator of TorchJD."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from domainbed.algorithms.precision import full_precision
from domainbed.errors import misspelt
from domainbed.hparams import Hparam, const
from domainbed.seeds import counter_seed
from domainbed_gs import surgery
from domainbed_gs.algorithms.base import Operation, Stats
from domainbed_gs.algorithms.gram import IMTLG, MGDA, AlignedMTL, CAGrad, DualProj, GramSurgery, UPGrad
from domainbed_gs.algorithms.nash import NashMTL
from domainbed_gs.algorithms.pairwise import GradVac, PCGrad
from domainbed_gs.algorithms.torchjd import PREFIX, check_torchjd, torchjd_direction

METHODS: dict[str, type[GramSurgery]] = {
    method.__name__: method
    for method in (PCGrad, GradVac, CAGrad, MGDA, IMTLG, NashMTL, AlignedMTL, UPGrad, DualProj)
}


class Aggregation(PCGrad, GradVac, CAGrad, MGDA, IMTLG, NashMTL, AlignedMTL, UPGrad, DualProj):
    """Any Gram method here by its name, or any aggregator of TorchJD (Quinton & Rey 2024, arXiv 2406.16232).

    `aggregator` is "MGDA", say, or "torchjd:ConFIG", or "torchjd:TrimmedMean(trim_number=1)". The class is
    each of our methods at once, so it has the hyper-parameters of all of them, and the one that is named
    does the work. An aggregator of TorchJD gets the K x P matrix of the gradients, a second copy of them;
    what it draws comes from torch's global generator, seeded for it by the run's seed and the update, and
    left as it was. Its direction counts as one on the scale of a mean, whatever it is (with `reduction`
    "mean", the default, it is used as it is), and `removed` is not logged.
    """

    HPARAMS = {
        "reduction": Hparam("mean", const("mean"), "scale of the combined gradient: sum or mean"),
        "aggregator": Hparam(
            "UPGrad", const("UPGrad"), f"a Gram method's name, or {PREFIX} and one of TorchJD's"
        ),
    }

    DISTRIBUTED = False

    def __init__(
        self, input_shape: tuple[int, ...], num_classes: int, num_domains: int, hparams: dict[str, Any]
    ) -> None:
        name = hparams["aggregator"]
        if name.startswith(PREFIX):
            check_torchjd(name, num_domains)
        elif name not in METHODS:
            raise misspelt(f"aggregator not found: {name}", name, [*METHODS, f"{PREFIX}NAME"])
        super().__init__(input_shape, num_classes, num_domains, hparams)
        self.scale = METHODS[name].scale if name in METHODS else "mean"

    def weights(self, gram: np.ndarray) -> np.ndarray:
        return METHODS[self.hparams["aggregator"]].weights(self, gram)

    def operate(self, gradients: Iterator[Tensor], parameters: Sequence[nn.Parameter]) -> Operation:
        name = self.hparams["aggregator"]
        if name in METHODS:
            return super().operate(gradients, parameters)
        matrix = torch.stack(list(gradients))
        devices = [matrix.device] if matrix.device.type == "cuda" else []
        with full_precision(matrix), torch.random.fork_rng(devices):
            torch.manual_seed(counter_seed(self.surgery_seed, self.updates))
            gradient = torchjd_direction(name, matrix)
        gram = surgery.gram_matrix(matrix.unbind()).cpu().numpy()
        stats: Stats = {
            "agreement": surgery.sign_agreement(matrix.unbind()),
            "cosine": surgery.mean_cosine(gram),
        }
        return Operation(gradient * self.factor(len(matrix)), stats)

    def operates_jointly(self) -> bool:
        # An aggregator of TorchJD needs the whole matrix.
        return self.hparams["aggregator"] in METHODS

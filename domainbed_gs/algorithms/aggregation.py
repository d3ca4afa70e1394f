"""Any aggregator of TorchJD by name (Quinton and Rey 2024)."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor

from domainbed.algorithms import REGISTRY
from domainbed.algorithms.base import Minibatch
from domainbed.algorithms.facts import Facts
from domainbed.algorithms.precision import full_precision
from domainbed.errors import UsageError, misspelt
from domainbed.gradients.comparison import Combined
from domainbed.hparams import Hparam, const
from domainbed.seeds import counter_seed
from domainbed_gs.algorithms.torchjd_objects import AGGREGATORS, PREFIX, TorchJDObject
from domainbed_gs.algorithms.upgrad import UPGrad


@REGISTRY.register()
class Aggregation(UPGrad):
    """An aggregator of TorchJD by name (Quinton and Rey 2024).

    `aggregator` is "torchjd:ConFIG", say, or "torchjd:TrimmedMean(trim_number=1)". A weighting may be an
    argument: "torchjd:GramianWeightedAggregator(gramian_weighting=CRMOGMWeighting(weighting=MGDAWeighting))".

    By default our own UPGrad, which needs no TorchJD. An aggregator gets the K x P matrix of the gradients, a
    second copy of them; what it draws comes from torch's global generator, seeded for it by the run's seed
    and the update, and restored. What it remembers of earlier updates is saved with the run. Its direction
    counts as one on the scale of a mean, whatever it is (with `reduction` "mean", the default, it is used as
    it is), and `removed` is not logged.
    """

    FACTS = Facts(
        year=2024,
        paper="Quinton and Rey, Jacobian descent for multi-objective optimization, arXiv 2406.16232",
        idea="Any aggregator of the library TorchJD by name",
        memory="K + 1",
        cost="By default, UPGrad. One of TorchJD's gets a K x P matrix, a second copy of the gradients.",
        one_environment="ERM",
    )

    HPARAMS = {
        "aggregator": Hparam("UPGrad", const("UPGrad"), f"UPGrad, or {PREFIX}NAME, one of TorchJD's"),
    }
    DISTRIBUTED = False

    def __init__(
        self, input_shape: tuple[int, ...], num_classes: int, num_domains: int, hparams: dict[str, Any]
    ) -> None:
        name = hparams["aggregator"]
        aggregator = None
        if name.startswith(PREFIX):
            aggregator = TorchJDObject(name, AGGREGATORS, num_domains)
        elif name in REGISTRY and name != "UPGrad":
            raise UsageError(f"aggregator {name} is an algorithm of its own: choose --algorithm {name}")
        elif name != "UPGrad":
            raise misspelt(f"aggregator not found: {name}", name, ["UPGrad", f"{PREFIX}NAME"])
        super().__init__(input_shape, num_classes, num_domains, hparams)
        self.aggregator = aggregator

    def combined(self, minibatches: Sequence[Minibatch], seeds: Sequence[int]) -> tuple[Tensor, Combined]:
        if self.aggregator is None:
            return super().combined(minibatches, seeds)
        return self.engine.as_matrix(minibatches, seeds, self._direction, self.factor(len(minibatches)))

    def _direction(self, matrix: Tensor) -> Tensor:
        """(P,) of the gradients (K, P)."""
        assert self.aggregator is not None
        devices = [matrix.device] if matrix.device.type == "cuda" else []
        with full_precision(matrix), torch.random.fork_rng(devices):
            torch.manual_seed(counter_seed(self.surgery_seed, self.updates))
            return self.aggregator(matrix)

    def finish(self, combined: Combined) -> None:
        super().finish(combined)
        if self.aggregator is not None:
            # A direction of unknown scale says nothing about what was removed, and it is always defined.
            del combined.logged["removed"], combined.logged["fallback"]

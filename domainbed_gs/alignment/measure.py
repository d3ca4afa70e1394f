"""Distances between the environments of one model."""

from __future__ import annotations

import contextlib
import math
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from torch import Tensor

from domainbed.errors import UsageError
from domainbed_gs.alignment.compressed import gram
from domainbed_gs.alignment.freed_memory import return_freed_memory
from domainbed_gs.alignment.hessians import (
    MOST_BLOCKS,
    Layer,
    hessian_grams,
    jackknife_error,
    residual_targets,
    without_bias,
)
from domainbed_gs.alignment.moments import MOMENTS, GroupMoments
from domainbed_gs.alignment.network import MeasuredNetwork, check_independent, measured_network
from domainbed_gs.alignment.pairs import GROUPS, distance, kind_of_pair, pairs_of
from domainbed_gs.alignment.settings import (
    ALIGNMENT,
    ALL,
    CLASSIFIER,
    LAYOUTS,
    QUANTITIES,
    Alignment,
)
from domainbed_gs.curvature.losses import Loss, SampleLoss
from domainbed_gs.trained_models.loading import TrainedModel
from domainbed_gs.trained_models.samples import EnvironmentSamples, StudyPurpose, draw_samples
from domainbed_gs.trained_models.table import Layout, Row

Grams = dict[tuple[str, str], NDArray[np.float64]]
"""(parameters, quantity) -> inner products of the groups' vectors."""


@dataclass(frozen=True)
class AlignmentMeasurement:
    """`Alignment` of trained models; implements `trained_models.over_models.Measurement`.

    Attributes:
        how: what is measured, and on how many samples.
    """

    how: Alignment

    @property
    def layouts(self) -> Mapping[str, Layout]:
        """The one table."""
        return LAYOUTS

    @property
    def settings(self) -> Mapping[str, object]:
        """The settings as columns."""
        return self.how.columns()

    def units(self, model: TrainedModel) -> int:
        """Passes over the samples of a group."""
        return len(self.how.parts) * units_of(self.how, len(model.dataset))

    def measure(self, model: TrainedModel, advance: Callable[[], None]) -> Mapping[str, Sequence[Row]]:
        """A row for each part, kind of parameters, and pair of environments."""
        rows = []
        for part in self.how.parts:
            samples = draw_samples(model, part, self.how.samples, self.how.sample_seed)
            with measured_network(model.algorithm, samples[0].x[:1], shared=True) as network:
                found = measure_network(network, samples, self.how, model.args["trial_seed"], advance)
            rows += [{"part": part, **row} for row in found]
        return {ALIGNMENT: rows}


def units_of(how: Alignment, environments: int) -> int:
    """How often measuring so many environments calls `advance` at most, but for a few blocks of layers."""
    return GROUPS * environments + how.probes * MOST_BLOCKS * ("hessian" in how.quantities)


def measure_network(
    network: MeasuredNetwork,
    samples: Sequence[EnvironmentSamples],
    how: Alignment,
    trial_seed: int,
    advance: Callable[[], None] = lambda: None,
) -> list[Row]:
    """A row for each kind of parameters and each pair of environments.

    Args:
        network: the network.
        samples: those of each environment. Half of them make the first group, the others the second.
        how: the settings; `parts` and `samples` are not read.
        trial_seed: seed of the run's trial. Each trial has its own random vectors, so that their errors are
            independent, and all methods of a trial have the same ones.
        advance: called `units_of` times at most.

    Raises: UsageError if per-sample gradients of the network cannot be formed, or an environment has fewer
        than four samples.
    """
    check_independent(network.network, samples[0].x[:4])
    groups = [group for each in samples for group in _groups(each)]
    probes = how.sample_seed, StudyPurpose.PROBES, trial_seed
    grams, hessians = _grams(network, groups, how, probes, advance)
    components = {ALL: network.count(network.layers), CLASSIFIER: network.count(network.classifier)}
    is_target = [each.is_target for each in samples]
    rows = []
    for parameters in dict.fromkeys(key for key, _ in grams):
        for first, second in pairs_of(len(samples)):
            count = min(len(groups[GROUPS * first].y), len(groups[GROUPS * second].y))
            row: Row = {
                "parameters": parameters,
                "pair": kind_of_pair(first, second, is_target),
                "first": samples[first].name,
                "second": samples[second].name,
                "count": count,
                "components": components[parameters],
            }
            for quantity in QUANTITIES:
                found = grams.get((parameters, quantity))
                values = (np.nan, np.nan) if found is None else distance(found, first, second)
                row |= {f"{quantity}_distance": values[0], f"{quantity}_norms": values[1]}
            row["hessian_error"] = _error(hessians.get(parameters), first, second)
            rows.append(row)
    return rows


@dataclass(frozen=True)
class _Group:
    """Samples of one environment: inputs (n, ...) and labels (n,)."""

    x: Tensor
    y: Tensor


def _groups(samples: EnvironmentSamples) -> list[_Group]:
    """The two groups of an environment, of the same size. A single sample has no variance."""
    half = len(samples.y) // GROUPS
    if half < 2:
        raise UsageError(
            f"environment {samples.name} has {len(samples.y)} samples in the measured part; {2 * GROUPS} are "
            "needed for variances of two groups; choose another of --parts"
        )
    return [
        _Group(x, y)
        for x, y in zip(samples.x.split(half)[:GROUPS], samples.y.split(half)[:GROUPS], strict=True)
    ]


def _error(products: NDArray[np.float64] | None, first: int, second: int) -> float:
    """Standard error of the distance of two Hessians' diagonals, as far as it is due to random vectors."""
    if products is None:
        return math.nan
    return jackknife_error(products, lambda found: distance(found, first, second)[0])


def _grams(
    network: MeasuredNetwork,
    groups: Sequence[_Group],
    how: Alignment,
    counters: tuple[int, ...],
    advance: Callable[[], None],
) -> tuple[Grams, dict[str, NDArray[np.float64]]]:
    """Inner products by kind of parameters and quantity, and those of all estimates of Hessians by kind.

    `counters` are those of the random vectors.
    """
    kinds = [ALL] + [CLASSIFIER] * bool(network.classifier)
    layers = [None if kind == ALL else network.classifier for kind in kinds]
    needed = {*how.quantities} | ({"fisher"} if "hessian" in how.quantities else set())
    moments = GroupMoments(network.network, needed, layers)
    found = [moments.of(group.x, group.y, advance) for group in groups]
    grams: Grams = {}
    for number, kind in enumerate(kinds):
        for quantity in how.quantities:
            if quantity in MOMENTS:
                grams[kind, quantity] = gram([of_group[number][quantity] for of_group in found])
    products: dict[str, NDArray[np.float64]] = {}
    if "hessian" in how.quantities:
        fisher = [[of_group[number]["fisher"] for of_group in found] for number in range(len(kinds))]
        del found
        targets = [residual_targets(network.network, group.x, group.y) for group in groups]

        @contextlib.contextmanager
        def open_block(block: Sequence[Layer]) -> Iterator[tuple[Sequence[Loss], Tensor]]:
            return_freed_memory()
            with network.only([layer.name for layer in block]) as vector:
                pairs = zip(groups, targets, strict=True)
                yield [SampleLoss(network.network, vector, group.x, y) for group, y in pairs], vector.values

        of_kinds = hessian_grams(
            [_layer(network, name, layers) for name in moments.order],
            open_block,
            fisher,
            how.probes,
            counters,
            advance,
        )
        products = dict(zip(kinds, of_kinds, strict=True))
        grams |= {(kind, "hessian"): without_bias(each) for kind, each in products.items()}
    return grams, products


def _layer(network: MeasuredNetwork, name: str, covered: Sequence[Collection[str] | None]) -> Layer:
    return Layer(name, network.count([name]), tuple(chosen is None or name in chosen for chosen in covered))

"""Trials of an experiment: its runs by trial seed, repetition and target, and the variants of each."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Hashable, Sequence
from typing import NamedTuple

from domainbed.records.query import Q
from domainbed.records.results_file import Record
from domainbed.records.target_sets import by_column
from domainbed.training.run_settings import Run

Key = tuple[str, str]
"""(dataset, method)"""


class Trial(NamedTuple):
    """A repetition of an experiment.

    Attributes:
        seed: the trial seed, on which the splits depend.
        repetition: number, from 0, among the runs that share the split and differ in `--seed` only.
    """

    seed: int
    repetition: int = 0

    def __str__(self) -> str:
        return f"{self.seed} (repetition {self.repetition})" if self.repetition else str(self.seed)


class Slot(NamedTuple):
    """What runs share that are equal in all but the seed.

    Attributes:
        trial_seed, test_envs, hparams_seed: settings of the runs.
        searched: values in which the variants of the experiment differ; empty if it has one variant.
    """

    trial_seed: int
    test_envs: tuple[int, ...]
    hparams_seed: int
    searched: tuple[Hashable, ...]


class Trials:
    """The trials of experiments, one for each method and dataset."""

    def __init__(self) -> None:
        self._runs: dict[Key, dict[Slot, dict[int, Run]]] = {}
        self._shared: dict[str, dict[int, list[int]]] = {}

    def add(self, key: Key, runs: Sequence[Run], searched: Sequence[tuple[Hashable, ...]]) -> None:
        """Add the runs of an experiment.

        Args:
            key: dataset and method.
            runs: the runs. Of those with equal settings and seeds, the one that got furthest is kept.
            searched: values in which the variants differ, for each run; empty if there is one variant.
        """
        slots: dict[Slot, dict[int, Run]] = defaultdict(dict)
        for run, values in zip(runs, searched or [()] * len(runs), strict=True):
            args = run.args
            slot = Slot(args["trial_seed"], tuple(args["test_envs"]), args["hparams_seed"], values)
            earlier = slots[slot].get(run.seed)
            if earlier is None or run.last_step > earlier.last_step:
                slots[slot][run.seed] = run
        self._runs[key] = slots
        self._shared.pop(key[0], None)

    def count(self, key: Key) -> int:
        """Number of runs that are kept."""
        return sum(map(len, self._runs[key].values()))

    def repeated(self, key: Key) -> tuple[int, ...]:
        """Trial seeds with repetitions, in ascending order."""
        return tuple(sorted({slot.trial_seed for slot, runs in self._runs[key].items() if len(runs) > 1}))

    def cells(self, key: Key) -> dict[tuple[Trial, int], list[Q[Record]]]:
        """(trial, target) -> records of each variant, by ascending hparams seed.

        With sets of targets, "target" is the number of a column (`domainbed.records.target_sets`).
        """
        cells: dict[tuple[Trial, int], dict[tuple[int, tuple[Hashable, ...]], list[Record]]] = {}
        shared = self._shared_seeds(key[0])
        for slot, runs in self._runs[key].items():
            order = shared.get(slot.trial_seed) or sorted(runs)
            for seed, run in runs.items():
                trial = Trial(slot.trial_seed, order.index(seed))
                for target, records in by_column(run.records).items():
                    variants = cells.setdefault((trial, target), {})
                    variants.setdefault((slot.hparams_seed, slot.searched), []).extend(records)
        return {
            cell: [Q(variants[each]) for each in sorted(variants, key=lambda variant: variant[0])]
            for cell, variants in cells.items()
        }

    def _shared_seeds(self, dataset: str) -> dict[int, list[int]]:
        """Trial seed -> seeds in ascending order, if all methods on the dataset repeat with the same seeds.

        Trials are left out in which this is not so, as in upstream's sweeps, where each run has a seed of its
        own: their repetitions are counted in each slot by itself. Found once for all methods.
        """
        if dataset in self._shared:
            return self._shared[dataset]
        used: dict[int, list[set[int]]] = defaultdict(list)
        for (of_dataset, _), slots in self._runs.items():
            if of_dataset == dataset:
                for slot, runs in slots.items():
                    used[slot.trial_seed].append(set(runs))
        shared = {trial_seed: set().union(*seeds) for trial_seed, seeds in used.items()}
        most = {trial_seed: max(map(len, seeds)) for trial_seed, seeds in used.items()}
        self._shared[dataset] = {
            trial: sorted(seeds) for trial, seeds in shared.items() if len(seeds) == most[trial]
        }
        return self._shared[dataset]

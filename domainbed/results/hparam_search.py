"""The hyper-parameter search of a sweep, as a selection method sees it: candidates and their accuracies."""

from __future__ import annotations

import json
from collections import defaultdict
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from statistics import fmean

from domainbed.hparams import Value
from domainbed.model_selection import SelectionMethod, get_test_records
from domainbed.records.query import Q
from domainbed.records.results_file import Record
from domainbed.results.experiments import pool
from domainbed.results.trials import Trial

Variant = tuple[int, str]
"""Hparams seed, and the hyper-parameters as JSON."""


@dataclass(frozen=True)
class Candidate:
    """One variant of the hyper-parameters in one trial on one target. A selection method chooses among these.

    Attributes:
        dataset: name of the dataset.
        algorithm: name of the algorithm.
        trial: the trial.
        target: index of the target environment.
        hparams: the hyper-parameters.
        val_acc: the accuracy that selection maximises, in [0, 1].
        test_acc: the accuracy that it reports, in [0, 1].
        records: records of all runs with the target, including those that hold out a second environment.
    """

    dataset: str
    algorithm: str
    trial: Trial
    target: int
    hparams: Mapping[str, Value]
    val_acc: float
    test_acc: float
    records: Q[Record]

    @property
    def hparams_seed(self) -> int:
        """The seed that the hyper-parameters were drawn with."""
        return int(self.records[0]["args"]["hparams_seed"])

    @property
    def variant(self) -> Variant:
        """What tells it apart from the other candidates of the trial and target."""
        return self.hparams_seed, json.dumps(self.hparams, sort_keys=True)

    @property
    def run(self) -> Q[Record]:
        """Records of the run that holds out the target alone."""
        return get_test_records(self.records)

    @property
    def environment(self) -> int:
        """Index of the environment that the target is; with sets of targets, `target` is that of a column."""
        (environment,) = self.run[0]["args"]["test_envs"]
        return int(environment)


@dataclass(frozen=True)
class HparamSetting:
    """One setting of the hyper-parameters of an algorithm on a dataset.

    Attributes:
        hparams: the hyper-parameters.
        candidates: those with these hyper-parameters, over targets and trials.
    """

    hparams: Mapping[str, Value]
    candidates: list[Candidate]

    @property
    def val_acc(self) -> float:
        """Mean of the accuracy that selection maximises, in [0, 1]."""
        return fmean(candidate.val_acc for candidate in self.candidates)

    @property
    def test_acc(self) -> float:
        """Mean of the accuracy that selection reports, in [0, 1]."""
        return fmean(candidate.test_acc for candidate in self.candidates)

    @property
    def targets(self) -> list[int]:
        """The targets on which the setting was tried, in ascending order."""
        return sorted({candidate.target for candidate in self.candidates})


def ranked_candidates(records: Iterable[Record], method: type[SelectionMethod]) -> list[list[Candidate]]:
    """The candidates of each trial, dataset, algorithm and target with a result, best first.

    Datasets and algorithms are in the order of tables. A method whose runs on a dataset are several
    experiments (`domainbed.results.experiments`) has none.
    """
    groups = []
    for of_method in pool(records):
        for (trial, target), variants in of_method.cells.items():
            candidates = [
                Candidate(
                    dataset=of_method.dataset,
                    algorithm=of_method.method,
                    trial=trial,
                    target=target,
                    hparams=of_variant[0].get("hparams", {}),
                    val_acc=accuracies["val_acc"],
                    test_acc=accuracies["test_acc"],
                    records=of_variant,
                )
                for accuracies, of_variant in method.ranked(variants)
            ]
            if candidates:
                groups.append(candidates)
    return groups


def hparam_settings(groups: Iterable[list[Candidate]]) -> dict[tuple[str, str], list[HparamSetting]]:
    """(dataset, algorithm) -> its settings, in the order of `groups`.

    Settings are averaged over targets, so only their trials with all targets of the algorithm count. Those
    without such a trial are left out.
    """
    found: dict[tuple[str, str], dict[str, list[Candidate]]] = defaultdict(lambda: defaultdict(list))
    for candidate in (candidate for group in groups for candidate in group):
        key = candidate.dataset, candidate.algorithm
        found[key][json.dumps(candidate.hparams, sort_keys=True)].append(candidate)
    return {key: list(_complete(by_hparams.values())) for key, by_hparams in found.items()}


def _complete(groups: Iterable[list[Candidate]]) -> Iterator[HparamSetting]:
    """The settings with these candidates, without the trials that lack a target."""
    groups = list(groups)
    targets = {candidate.target for group in groups for candidate in group}
    for complete in (of_complete_trials(group, targets) for group in groups):
        if complete:
            yield HparamSetting(complete[0].hparams, complete)


def of_complete_trials(candidates: Sequence[Candidate], targets: set[int]) -> list[Candidate]:
    """The candidates of trials that have all `targets`, so that trials average over the same ones."""
    of_trial: dict[Trial, set[int]] = defaultdict(set)
    for candidate in candidates:
        of_trial[candidate.trial].add(candidate.target)
    return [candidate for candidate in candidates if of_trial[candidate.trial] >= targets]

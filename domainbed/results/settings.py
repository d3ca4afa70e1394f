"""What selection sees: each setting of the hyper-parameters in each trial, with its accuracies."""

from __future__ import annotations

import json
from collections import defaultdict
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from statistics import fmean

from domainbed.hparams import Value
from domainbed.model_selection import SelectionMethod, get_test_records
from domainbed.records.grouping import get_grouped_records
from domainbed.records.jsonl import Record
from domainbed.records.query import Q
from domainbed.results.merging import merged_for


@dataclass(frozen=True)
class Candidate:
    """One hparams seed in one trial on one target: what a selection method chooses among.

    Attributes:
        dataset, algorithm, trial, target: of the group in which it is chosen.
        hparams: its hyper-parameters.
        val_acc: what selection maximises, in [0, 1].
        test_acc: what it reports.
        records: of its runs, those with another environment held out besides the target among them.
    """

    dataset: str
    algorithm: str
    trial: int
    target: int
    hparams: Mapping[str, Value]
    val_acc: float
    test_acc: float
    records: Q[Record]

    @property
    def run(self) -> Q[Record]:
        """Records of the run that holds out the target alone."""
        return get_test_records(self.records)


@dataclass(frozen=True)
class Setting:
    """Hyper-parameters of an algorithm on a dataset, over the targets and trials that ran with them.

    Attributes:
        hparams: the hyper-parameters.
        candidates: those that have them.
    """

    hparams: Mapping[str, Value]
    candidates: list[Candidate]

    @property
    def val_acc(self) -> float:
        """Mean of what selection maximises."""
        return fmean(it.val_acc for it in self.candidates)

    @property
    def test_acc(self) -> float:
        """Mean of what it reports."""
        return fmean(it.test_acc for it in self.candidates)

    @property
    def targets(self) -> list[int]:
        """The targets that it was tried on."""
        return sorted({it.target for it in self.candidates})


def candidates(records: Iterable[Record], method: type[SelectionMethod]) -> list[list[Candidate]]:
    """For each (trial, dataset, algorithm, target) with a result, its candidates, the chosen one first."""
    groups = []
    for group in get_grouped_records(records):
        key = (group["dataset"], group["algorithm"], group["trial_seed"], group["test_env"])
        found = [
            Candidate(*key, of_seed[0].get("hparams", {}), acc["val_acc"], acc["test_acc"], of_seed)
            for acc, of_seed in method.hparams_accs(merged_for(method, group["records"]))
        ]
        if found:
            groups.append(found)
    return groups


def settings(groups: Iterable[list[Candidate]]) -> dict[tuple[str, str], list[Setting]]:
    """(dataset, algorithm) -> its settings, in order of appearance."""
    found: dict[tuple[str, str], dict[str, list[Candidate]]] = defaultdict(lambda: defaultdict(list))
    for it in (candidate for group in groups for candidate in group):
        found[it.dataset, it.algorithm][json.dumps(it.hparams, sort_keys=True)].append(it)
    return {
        key: [Setting(of_setting[0].hparams, of_setting) for of_setting in own.values()]
        for key, own in found.items()
    }

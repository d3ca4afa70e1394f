"""The one rule of which runs a number in a report may be made of.

Every setting, hyper-parameter and identity of data and weights has a kind (`domainbed.hparams.Kind`). Of the
runs of one method on one dataset, those that differ

- in *incidental* things only are one run, done twice: the one that got furthest counts;
- in *searched* things are variants: selection chooses among them, within each trial;
- in the *seed* only are repetitions: trials of their own, which share a split;
- in things of *design* are different experiments: no number mixes them, so the method has no result.

All methods on a dataset must have used the same data. Other design settings may differ between methods.
"""

from __future__ import annotations

import itertools
import shlex
from collections import Counter, defaultdict
from collections.abc import Hashable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field

from domainbed import algorithms, datasets
from domainbed.hparams import Kind
from domainbed.records.query import Q
from domainbed.records.results_file import Record
from domainbed.records.target_sets import TARGET_SETS, columns_of
from domainbed.results.trials import Trial, Trials
from domainbed.training.config import SETTINGS
from domainbed.training.run_settings import DATA, Kinds, Run, as_text, runs_of
from domainbed.training.splits import SUFFIX

MOST_VALUES = 4
"""Number of values that a reason lists."""


@dataclass(frozen=True)
class Conflict:
    """Several experiments where a table has room for one.

    Attributes:
        dataset: name of the dataset.
        method: name of the method; empty if the experiments differ in their data, for all methods.
        values: name of what differs -> value -> number of runs, the most frequent value first.
    """

    dataset: str
    method: str
    values: Mapping[str, Mapping[Hashable, int]]

    @property
    def reason(self) -> str:
        """What differs, such as "steps is 300 (8 runs), 500 (2 runs)"."""
        return "; ".join(f"{name} is {_listed(name, counts)}" for name, counts in self.values.items())

    @property
    def remedy(self) -> str:
        """Flags that choose one of the experiments, or show each."""
        known = {name: [each for each in counts if each is not None] for name, counts in self.values.items()}
        chosen = [f"{name}={as_text(values[0])}" for name, values in known.items()]
        flags = " ".join(f"--where {shlex.quote(condition)}" for condition in chosen)
        mix = (
            ", or pool them with --mix_data" if all(name.startswith("data.") for name in self.values) else ""
        )
        return f"choose one, e.g. {flags}, or show each with --by {next(iter(self.values))}{mix}"

    @property
    def text(self) -> str:
        """The reason and the remedy, as a part of a line."""
        return f"{self.reason}; {self.remedy}"

    def __str__(self) -> str:
        who = self.method or "all methods"
        return f"{who} on {self.dataset}: several experiments, which no number mixes: {self.text}"


@dataclass(frozen=True)
class MethodRuns:
    """The runs of one method on one dataset.

    Attributes:
        dataset: name of the dataset.
        method: name of the method.
        runs: all of them, in order of appearance.
        conflict: what makes them several experiments; None if they are one.
        cells: (trial, target) -> the variants that selection chooses among, by ascending hparams seed. A
            variant is the records of the runs that hold out the target, alone or with a second environment;
            with sets of targets (`domainbed.records.target_sets`), "target" is the number of a column. Empty
            if there is a conflict.
        repeated: trial seeds with repetitions.
        copies: number of runs that are left out, because another run has equal settings and seeds.
        undeclared: hyper-parameters that differ and that nothing declares; they count as searched.
    """

    dataset: str
    method: str
    runs: Sequence[Run]
    conflict: Conflict | None = None
    cells: Mapping[tuple[Trial, int], Sequence[Q[Record]]] = field(default_factory=dict)
    repeated: tuple[int, ...] = ()
    copies: int = 0
    undeclared: tuple[str, ...] = ()

    @property
    def places(self) -> list[tuple[Trial, int]]:
        """(trial, target) of all runs, without regard to repetitions."""
        places = [
            (Trial(run.args["trial_seed"]), target)
            for run in self.runs
            for target in columns_of(run.args["test_envs"], run.records[0].get(TARGET_SETS, ()))
        ]
        return list(dict.fromkeys(places))


def pool(records: Iterable[Record]) -> list[MethodRuns]:
    """Apply the rule: the runs of each method on each dataset, in the order of tables."""
    kinds = Kinds()
    by_dataset: dict[str, list[Run]] = defaultdict(list)
    by_method: dict[tuple[str, str], list[Run]] = defaultdict(list)
    for run in runs_of(records):
        by_dataset[run.dataset].append(run)
        by_method[run.dataset, run.method].append(run)
    conflicts: dict[tuple[str, str], Conflict] = {}
    trials = Trials()
    undeclared: dict[tuple[str, str], tuple[str, ...]] = {}
    data = {dataset: _different_data(runs, kinds) for dataset, runs in by_dataset.items()}
    for key, runs in by_method.items():
        dataset, method = key
        differing = kinds.differing(runs)
        design = _without_split_files(differing[Kind.DESIGN], runs)
        if data[dataset] or design:
            who = "" if data[dataset] else method
            conflicts[key] = Conflict(dataset, who, _counts(data[dataset] or design))
        else:
            searched = differing[Kind.SEARCHED]
            undeclared[key] = tuple(name for name in searched if not kinds.is_declared(name, runs[0]))
            trials.add(key, runs, list(zip(*searched.values(), strict=True)))
    return [
        MethodRuns(*key, runs, conflicts[key])
        if key in conflicts
        else MethodRuns(
            *key,
            runs,
            cells=trials.cells(key),
            repeated=trials.repeated(key),
            copies=len(runs) - trials.count(key),
            undeclared=undeclared[key],
        )
        for key, runs in _in_order_of_tables(by_method)
    ]


def _in_order_of_tables(
    by_method: Mapping[tuple[str, str], list[Run]],
) -> list[tuple[tuple[str, str], list[Run]]]:
    """The items of `by_method`, whose keys are (dataset, method)."""
    names = datasets.in_order(dataset for dataset, _ in by_method)
    methods = algorithms.REGISTRY.order(method for _, method in by_method)
    return [(key, by_method[key]) for key in itertools.product(names, methods) if key in by_method]


def conflicts(records: Iterable[Record]) -> list[Conflict]:
    """The methods and datasets whose runs are several experiments."""
    found = [method.conflict for method in pool(records) if method.conflict is not None]
    return [conflict for i, conflict in enumerate(found) if conflict not in found[:i]]


def _different_data(runs: Sequence[Run], kinds: Kinds) -> dict[str, list[Hashable]]:
    """Identities of the data that differ between runs on a dataset."""
    return kinds.differing(runs, DATA)[Kind.DESIGN]


def _without_split_files(
    design: Mapping[str, Sequence[Hashable]], runs: Sequence[Run]
) -> dict[str, Sequence[Hashable]]:
    """`design` without `splits`, if its values are files, one for each trial and set of targets."""
    values = dict(design)
    splits = values.get("splits", [])
    files: dict[tuple[object, ...], set[Hashable]] = defaultdict(set)
    for run, value in zip(runs, splits, strict=False):
        files[run.args["trial_seed"], *run.args["test_envs"]].add(value)
    if all(str(value).endswith(SUFFIX) for value in splits) and all(len(own) == 1 for own in files.values()):
        values.pop("splits", None)
    return values


def _counts(values: Mapping[str, Sequence[Hashable]]) -> dict[str, dict[Hashable, int]]:
    return {name: dict(Counter(of_runs).most_common()) for name, of_runs in values.items()}


def _listed(name: str, counts: Mapping[Hashable, int]) -> str:
    shown = [f"{_shown(name, value)} ({_runs(count)})" for value, count in counts.items()]
    more = len(shown) - MOST_VALUES
    return ", ".join(shown[:MOST_VALUES]) + (f" and {more} more values" if more > 0 else "")


def _shown(name: str, value: Hashable) -> str:
    return as_text(value) if value is not None or name in SETTINGS else "not recorded"


def _runs(count: int) -> str:
    return "1 run" if count == 1 else f"{count} runs"

"""Runs that hold out several targets at once, and how each target of theirs is read.

Tables have a column for each target of each set: that of photo held out with sketch is not that of photo held
out with cartoon. To fill it, selection methods see the run as if it held out this target alone: with the
validation accuracies of its sources, and without the accuracies of the other targets.
"""

from __future__ import annotations

import functools
import re
from collections.abc import Iterable, Mapping, Sequence
from typing import NamedTuple

from domainbed.records.environments import out_acc
from domainbed.records.query import Q
from domainbed.records.results_file import Record

TARGET_SETS = "target_sets"
"""Key of the sets of targets of a dataset, which is added to its records when a sweep is read."""

TargetSets = Sequence[Sequence[int]]
"""Sets of indices of environments. Empty: each environment is held out in turn, alone or in pairs."""

_HELD_OUT = "held_out"
_VALIDATION = "target_validation"
_ENVIRONMENT = re.compile(r"(?:^|_)env(\d+)_")


class HeldOut(NamedTuple):
    """What a column of a table is about.

    Attributes:
        target: index of the target.
        targets: all targets of the runs behind it, in ascending order.
    """

    target: int
    targets: tuple[int, ...]


def columns(sets: TargetSets) -> list[HeldOut]:
    """The columns of `sets`, set by set."""
    return [HeldOut(target, tuple(targets)) for targets in sets for target in targets]


def columns_of(test_envs: Sequence[int], sets: TargetSets) -> list[int]:
    """Numbers of the columns that a run with these targets belongs to.

    They are those in `columns`; without sets, each target is the number of its column.
    """
    if not sets:
        return [*test_envs]
    own = tuple(sorted(test_envs))
    return [number for number, column in enumerate(columns(sets)) if column.targets == own]


def by_column(records: list[Record]) -> dict[int, list[Record]]:
    """Number of the column -> the records of one run as selection methods see them in this column."""
    test_envs = records[0]["args"]["test_envs"]
    sets = records[0].get(TARGET_SETS, ())
    if not sets:
        return dict.fromkeys(test_envs, records)
    held_out = columns(sets)
    return {number: _with_one_target(records, held_out[number]) for number in columns_of(test_envs, sets)}


def _with_one_target(records: Sequence[Record], column: HeldOut) -> list[Record]:
    others = frozenset(column.targets) - {column.target}
    args = {**records[0]["args"], "test_envs": [column.target]}
    sizes: dict[str, dict[str, int]] = {}
    found = []
    for record in records:
        kept = {key: record[key] for key in _keys_without(tuple(record), others)}
        if "sizes" in record:
            own = _keys_without(tuple(record["sizes"]), others)
            kept["sizes"] = sizes.setdefault(str(own), {key: record["sizes"][key] for key in own})
        accuracies = [record.get(out_acc(target)) for target in column.targets]
        known = [accuracy for accuracy in accuracies if accuracy is not None]
        kept[_VALIDATION] = sum(known) / len(known) if len(known) == len(accuracies) else None
        found.append(kept | {"args": args, _HELD_OUT: column.targets})
    return found


@functools.lru_cache(maxsize=4096)
def _keys_without(keys: tuple[str, ...], environments: frozenset[int]) -> tuple[str, ...]:
    """The keys that are not about one of `environments`. The records of a run have the same keys."""
    matches = {key: _ENVIRONMENT.search(key) for key in keys}
    return tuple(key for key, match in matches.items() if not (match and int(match[1]) in environments))


def targets_of(record: Record) -> list[int]:
    """All targets of the run, also if `record` is one of `by_column`."""
    return [*record.get(_HELD_OUT, record["args"]["test_envs"])]


def target_validation(record: Record, target: int) -> float | None:
    """The accuracy on the out-split of `target`; with several targets, the mean over all of them.

    One model is selected for all targets of a set.
    """
    accuracy: float | None = record.get(_VALIDATION, record.get(out_acc(target)))
    return accuracy


def shown_records(records: Iterable[Record]) -> Q[Record]:
    """Records of the runs whose targets tables show: one target, or a set of targets."""
    return Q([each for each in records if TARGET_SETS in each or len(each["args"]["test_envs"]) == 1])


def sets_by_dataset(records: Iterable[Record]) -> Mapping[str, TargetSets]:
    """Dataset -> its sets of targets; datasets without any are left out."""
    return {each["args"]["dataset"]: each[TARGET_SETS] for each in records if TARGET_SETS in each}

"""Runs that a later version resumed, or a process in another folder: the first records say less.

A later version records more settings, and more about the data; the path of the run's directory is as it was
typed for the process that resumed it.
"""

from __future__ import annotations

import itertools
from collections.abc import Iterable, Mapping
from typing import Any

from domainbed.hparams import Kind
from domainbed.records.results_file import Record
from domainbed.records.sweep_records import RunRecords
from domainbed.training.config import SETTINGS

_ENTRIES = ("args", "hparams", "data", "weights", "environments", "dataset_name")
_INCIDENTAL = frozenset(name for name, each in SETTINGS.items() if each.kind is Kind.INCIDENTAL)


def complete_resumed_runs(runs: Iterable[RunRecords]) -> None:
    """Give the records of a resumed run the settings and identities of its last record.

    Records that contradict the later ones, in more than incidental settings, stay as they are.
    """
    for run in runs:
        for later, earlier in itertools.pairwise(reversed(run.file.records)):
            changed = [key for key in _ENTRIES if earlier.get(key) is not later.get(key)]
            if changed and not any(_contradict(earlier, later, key) for key in changed):
                earlier.update({key: later[key] for key in changed if key in later})


def _contradict(earlier: Record, later: Record, key: str) -> bool:
    """Whether two records of one file have entries `key` that cannot be of one run."""
    if key not in earlier or key not in later:
        return False
    before, after = earlier[key], later[key]
    if not isinstance(before, Mapping) or not isinstance(after, Mapping):
        return bool(before != after)
    return any(before[name] != after[name] for name in _shared(before, after))


def _shared(before: Mapping[str, Any], after: Mapping[str, Any]) -> Iterable[str]:
    return before.keys() & after.keys() - _INCIDENTAL

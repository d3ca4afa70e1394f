"""One record out of the two stages of a `train_autolr` run (CLI spec 9.3)."""

from __future__ import annotations

from collections.abc import Hashable, Iterable, Mapping
from typing import Any

from domainbed.model_selection import SelectionMethod
from domainbed.records.jsonl import Record, by_run
from domainbed.records.query import Q


def remove_key(d: Mapping[str, Any], key: str) -> dict[str, Any]:
    """A copy of `d` without `key`; raises KeyError if it has none."""
    copy = dict(d)
    del copy[key]
    return copy


def recursive_freeze(obj: object) -> Hashable:
    """`obj` with dicts and sets as frozensets, lists and tuples as tuples, all the way down."""
    if isinstance(obj, dict):
        return frozenset((key, recursive_freeze(value)) for key, value in obj.items())
    if isinstance(obj, list | tuple):
        return tuple(recursive_freeze(value) for value in obj)
    if isinstance(obj, set | frozenset):
        return frozenset(recursive_freeze(value) for value in obj)
    assert isinstance(obj, Hashable)
    return obj


def merge_records(records: Iterable[Record]) -> Q[Record]:
    """One record for each set of `args` equal apart from `holdout_fraction`, in order of first appearance.

    A later record's keys replace an earlier one's, so the last value of every key stays.
    """
    merged: dict[Hashable, Record] = {}
    for args, of_run in by_run(records):
        run = recursive_freeze({k: v for k, v in args.items() if k != "holdout_fraction"})
        for record in of_run:
            merged.setdefault(run, {}).update(record)
    return Q(list(merged.values()))


def merged_for(method: type[SelectionMethod], records: Q[Record]) -> Q[Record]:
    """`records` of a group as `method` wants them: with the stages of a run merged, or as they are."""
    return merge_records(records) if method.merges_stages else records

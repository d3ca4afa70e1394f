"""The environments that records name, and the sources whose validation accuracy they have."""

from __future__ import annotations

import functools
import re
from collections.abc import Iterable

from domainbed.records.results_file import Record

_ENVIRONMENT = re.compile(r"env(\d+)_(?:in|out|test)")
_VALIDATION = re.compile(r"env(\d+)_out_acc")


@functools.cache
def out_acc(environment: int) -> str:
    """Key of the validation accuracy of an environment."""
    return f"env{environment}_out_acc"


def environments(record: Record) -> tuple[int, ...]:
    """The environments that `record` names: targets, and those with an accuracy or a size, in order."""
    named = {*_named(tuple(record)), *_named(tuple(record.get("sizes", ())))}
    return tuple(sorted(named.union(record["args"]["test_envs"])))


def validated_sources(records: Iterable[Record]) -> tuple[int, ...]:
    """The source environments with a validation accuracy in some of `records`, in order."""
    found: set[int] = set()
    for record in records:
        found.update(i for i in _validated(tuple(record)) if i not in record["args"]["test_envs"])
    return tuple(sorted(found))


# The records of a run have the same keys, so each of these is computed once for a run.


@functools.lru_cache(maxsize=4096)
def _named(keys: tuple[str, ...]) -> frozenset[int]:
    return frozenset(int(match[1]) for key in keys if (match := _ENVIRONMENT.match(key)))


@functools.lru_cache(maxsize=4096)
def _validated(keys: tuple[str, ...]) -> frozenset[int]:
    return frozenset(int(match[1]) for key in keys if (match := _VALIDATION.fullmatch(key)))

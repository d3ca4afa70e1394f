"""Records of a sweep, loaded and grouped, under upstream's names (CLI spec 7.2)."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path
from typing import Any

from domainbed.records.jsonl import Record, by_run
from domainbed.records.query import Q
from domainbed.records.runs import load_runs


def load_records(path: str | Path) -> Q[Record]:
    """Records of all runs in the sweep directory `path`, runs in order of their names.

    A progress bar goes to stderr; lines that are no records are skipped with a warning in the log. The
    records of one run share equal `args`, `hparams` and `sizes` objects: copy before changing one.

    Raises: UsageError if `path` is no directory.
    """
    return load_runs(Path(path)).records()


def get_grouped_records(records: Iterable[Record]) -> Q[dict[str, Any]]:
    """Groups by trial seed, dataset, algorithm and target, in order of first appearance.

    Returns: dicts with keys `trial_seed`, `dataset`, `algorithm`, `test_env` and `records` (a Q). A record
        with two target environments is in two groups.
    """
    groups: dict[tuple[int, str, str, int], list[Record]] = {}
    for args, of_run in by_run(records):
        for target in args["test_envs"]:
            key = (args["trial_seed"], args["dataset"], args["algorithm"], target)
            groups.setdefault(key, []).extend(of_run)
    names = ("trial_seed", "dataset", "algorithm", "test_env")
    return Q([dict(zip(names, key, strict=True)) | {"records": Q(group)} for key, group in groups.items()])

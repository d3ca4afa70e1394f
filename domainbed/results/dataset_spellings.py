"""One dataset for all spellings of its path: `photos`, `./photos/` and `/abs/photos` are one in tables.

What was typed stays in the records on disk, in hashes and seeds.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

from domainbed import datasets
from domainbed.records.results_file import Record
from domainbed.records.sweep_records import by_run

Spellings = Mapping[str, str]
"""Path of a folder or list, as typed -> the spelling that stands for its dataset. Others are left out."""


def spellings_of(records: Iterable[Record]) -> dict[str, str]:
    """The spellings of folders and lists in `records` whose last part and checksum agree.

    The shortest one stands for the dataset.
    """
    groups: dict[object, set[str]] = {}
    for args, of_run in by_run(records):
        typed = args["dataset"]
        checksum = _checksum(of_run[0])
        if checksum is not None and typed not in datasets.DATASETS:
            name = str(of_run[0].get("dataset_name", Path(typed).name))
            groups.setdefault((name, checksum), set()).add(typed)
    shown: dict[str, str] = {}
    for group in groups.values():
        # A spelling is in several groups if its data changed.
        firsts = {shown.get(typed) for typed in group}
        alike = {*group, *(typed for typed, first in shown.items() if first in firsts)}
        shown |= dict.fromkeys(alike, min(alike, key=lambda typed: (len(typed), typed)))
    return {typed: first for typed, first in shown.items() if typed != first}


def with_one_spelling(args: Mapping[str, Any], spellings: Spellings) -> dict[str, Any]:
    """A copy of the `args` of a run with the spelling that stands for its dataset."""
    dataset = str(args.get("dataset"))
    return {**args, "dataset": spellings[dataset]} if dataset in spellings else dict(args)


def records_with_one_spelling(records: Iterable[Record], spellings: Spellings) -> list[Record]:
    """`records` with one spelling for each dataset. Records whose spelling changes are copied."""
    respelt: list[Record] = []
    for args, of_run in by_run(records):
        new_args = with_one_spelling(args, spellings)
        respelt += [record | {"args": new_args} for record in of_run] if new_args != args else of_run
    return respelt


def _checksum(record: Record) -> str | None:
    data = record.get("data")
    return str(data["checksum"]) if isinstance(data, dict) and "checksum" in data else None

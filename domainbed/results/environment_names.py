"""Names of environments, as each run wrote them down. The data as it looks now is never asked.

A record has them as `environments`. Version 0.1.0 wrote them to run.json alone, as the keys of `counts`.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

from domainbed import datasets
from domainbed.datasets.list_file import SUFFIXES, sorted_names
from domainbed.records.results_file import Record
from domainbed.records.sweep_records import RunRecords, by_run
from domainbed.training.run_state import read_json

KEY = "environments"
"""Key of the names in a record."""


def add_environment_names(runs: Iterable[RunRecords]) -> None:
    """Add the key `environments` to the records that lack it, if their run wrote the names to run.json.

    Registered datasets are left out: their classes have the names in order.
    """
    for run in runs:
        records = run.file.records
        lacking = [record for record in records if KEY not in record]
        if lacking and lacking[0]["args"]["dataset"] not in datasets.DATASETS:
            names = _names_in_run(run.path, lacking[0]["args"]["dataset"])
            if names:
                for record in lacking:
                    record[KEY] = names


def recorded_names(records: Iterable[Record]) -> tuple[str, ...]:
    """The names in the records of one dataset, in order; empty if no record has them.

    Where runs disagree about an environment, its name lists the names that they gave it: "Aphoto / photo".
    """
    recorded = {_names(of_run[0]) for _, of_run in by_run(records)}
    length = max(map(len, recorded), default=0)
    at_index = [{names[i] for names in recorded if i < len(names)} for i in range(length)]
    return tuple(" / ".join(sorted(names)) for names in at_index)


def _names(content: Mapping[str, Any]) -> tuple[str, ...]:
    """The names in a record or a run.json; empty if it has none."""
    names = content.get(KEY)
    return tuple(map(str, names)) if isinstance(names, list) else ()


def _names_in_run(run: Path, dataset: str) -> list[str]:
    """The names in the run.json of a folder or list, in order; empty if it does not say."""
    content = read_json(run / "run.json") or {}
    counts = content.get("counts", {})
    is_list = Path(dataset).suffix.lower() in SUFFIXES
    return list(_names(content) or (sorted_names(counts) if is_list else sorted(counts)))

"""Whether the runs of a sweep are over the same data."""

from __future__ import annotations

import itertools

from domainbed.errors import RunError
from domainbed.records.jsonl import Record, by_run
from domainbed.records.query import Q


def check_same_data(records: Q[Record]) -> None:
    """Refuse runs of one dataset whose records say that they are over different data.

    Records that do not say it, such as upstream's, go with any.

    Raises: RunError that names a run over each of the data.
    """
    runs: dict[str, dict[tuple[str, str], dict[str, None]]] = {}
    for args, of_run in by_run(records):
        for data, _ in itertools.groupby(record.get("data") for record in of_run):
            if isinstance(data, dict):
                identity = str(data.get("checksum")), str(data.get("version"))
                same = runs.setdefault(args["dataset"], {}).setdefault(identity, {})
                same[str(args.get("output_dir"))] = None
    for dataset, by_data in runs.items():
        if len(by_data) > 1:
            kinds = ", ".join(
                f"checksum {checksum} version {version} ({len(paths)} runs, e.g. {next(iter(paths))})"
                for (checksum, version), paths in by_data.items()
            )
            raise RunError(
                f"runs on {dataset} are over different data: {kinds}; give --mix_data to take them as one"
            )

"""Names of methods: an algorithm under a condition (`--grouping`), such as "AgrSum/pooled".

To a report, runs of one algorithm under several conditions are several methods.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

from domainbed.records.results_file import Record
from domainbed.records.sweep_records import by_run


def method_name(algorithm: str, condition: str | None) -> str:
    """Name of `algorithm` under `condition`: "AgrSum/pooled", or "AgrSum" under `domain` or None."""
    return algorithm if condition in (None, "domain") else f"{algorithm}/{condition}"


def algorithm_and_condition(method: str) -> tuple[str, str]:
    """The parts of a method's name: ("AgrSum", "pooled"), or ("AgrSum", "domain")."""
    algorithm, _, condition = method.partition("/")
    return algorithm, condition or "domain"


def with_method_name(args: Mapping[str, Any]) -> dict[str, Any]:
    """A copy of the `args` of a run whose `algorithm` is the name of the method."""
    condition = args.get("grouping")
    return {**args, "algorithm": method_name(args["algorithm"], condition)} if condition else dict(args)


def with_method_names(records: Iterable[Record]) -> list[Record]:
    """`records` with names of methods as `algorithm`. Records whose name changes are copied."""
    renamed: list[Record] = []
    for args, records_of_run in by_run(records):
        new_args = with_method_name(args)
        if new_args["algorithm"] == args["algorithm"]:
            renamed += records_of_run
        else:
            renamed += [record | {"args": new_args} for record in records_of_run]
    return renamed

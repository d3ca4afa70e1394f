"""Runs of one algorithm under several conditions (`--grouping`) are several methods to a sweep's reader."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

from domainbed.records.jsonl import Record, by_run

SEPARATOR = "/"


def method_name(algorithm: str, condition: str | None) -> str:
    """A method's name: "AgrSum/pooled"; under the ordinary condition, `domain`, just "AgrSum"."""
    return algorithm if condition in (None, "domain") else f"{algorithm}{SEPARATOR}{condition}"


def algorithm_and_condition(method: str) -> tuple[str, str]:
    """What a method's name is made of: ("AgrSum", "pooled"), or ("AgrSum", "domain")."""
    algorithm, _, condition = method.partition(SEPARATOR)
    return algorithm, condition or "domain"


def named(args: Mapping[str, Any]) -> dict[str, Any]:
    """Arguments of a run with the method's name in the place of the algorithm's."""
    condition = args.get("grouping")
    return {**args, "algorithm": method_name(args["algorithm"], condition)} if condition else dict(args)


def with_method_names(records: Iterable[Record]) -> list[Record]:
    """Records likewise; the same objects where the names are the same."""
    renamed: list[Record] = []
    for args, of_run in by_run(records):
        own = named(args)
        same = own["algorithm"] == args["algorithm"]
        renamed += of_run if same else [record | {"args": own} for record in of_run]
    return renamed

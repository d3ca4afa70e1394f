"""Records: the lines of one `results.jsonl`, appended whole and read whatever happened to the file."""

from __future__ import annotations

import contextlib
import itertools
import json
import os
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from operator import itemgetter
from pathlib import Path
from typing import Any, TypeGuard

from domainbed.errors import RunError
from domainbed.files import write_whole

Record = dict[str, Any]
"""One checkpoint of one run; keys as in CLI spec 4.2."""

NAME = "results.jsonl"

_NEEDED_ARGS = {"trial_seed": int, "dataset": str, "algorithm": str, "hparams_seed": int, "test_envs": list}
_SHARED = ("args", "hparams", "sizes", "data", "weights")


@dataclass
class RecordsFile:
    """What one `results.jsonl` holds.

    Attributes:
        records: its records, in order. Equal `args`, `hparams`, `sizes` and so on are one object.
        damaged: numbers (from 1) of lines that are no records: broken JSON, or JSON of something else.
        torn: number of the last line if it was cut off while it was being written, else None.
    """

    records: list[Record] = field(default_factory=list)
    damaged: list[int] = field(default_factory=list)
    torn: int | None = None


def read_records(path: Path) -> RecordsFile:
    """Everything that can be read from `path`.

    NaN and infinities are accepted, and so is a complete last line without its newline.

    Raises: OSError if the file cannot be opened or read.
    """
    content = RecordsFile()
    lines = path.read_bytes().split(b"\n")
    numbers = [number for number, line in enumerate(lines, start=1) if line.strip()]
    before: Record = {}
    for number, record in zip(numbers, _parse_all([lines[i - 1] for i in numbers]), strict=True):
        if isinstance(record, dict):
            _share(record, before)
        if _is_record(record, before):
            content.records.append(record)
            before = record
        elif number == len(lines):
            content.torn = number
        else:
            content.damaged.append(number)
    return content


def by_run(records: Iterable[Record]) -> Iterator[tuple[dict[str, Any], list[Record]]]:
    """(args, records) for each stretch of records with equal `args`, such as those of a run."""
    for args, of_run in itertools.groupby(records, key=itemgetter("args")):
        yield args, list(of_run)


def append_record(path: Path, record: Mapping[str, object]) -> None:
    """Append `record` to `path` as one line of JSON with sorted keys, and wait until it is on the disk.

    After a torn line the record starts a fresh one. If it cannot be written whole, nothing of it stays.

    Raises: RunError if the file cannot be written (no room, no permission).
    """
    data = (json.dumps(record, sort_keys=True) + "\n").encode("utf-8")
    try:
        with path.open("a+b", buffering=0) as file:
            end = file.seek(0, os.SEEK_END)
            file.seek(max(end - 1, 0))
            data = data if file.read(1) in (b"", b"\n") else b"\n" + data
            try:
                _write_all(file.fileno(), data)
            except OSError:
                with contextlib.suppress(OSError):
                    file.truncate(end)
                raise
    except OSError as error:
        raise RunError(
            f"cannot write {path}: {error.strerror}; make room or set its permissions, and run again"
        ) from None


def drop_records_after(path: Path, step: int) -> None:
    """Cut `path` behind its record of `step`, so that what comes next is that of the steps after it.

    Args:
        path: a results.jsonl; may be missing where `step` is negative.
        step: of the last record to keep; negative to keep none.

    Raises: RunError if there is no such record.
    """
    data = path.read_bytes() if path.exists() else b""
    position = end = 0
    for line in data.splitlines(keepends=True):
        position += len(line)
        record = _parse(line)
        if step >= 0 and _is_record(record, {}) and record["step"] == step:
            end = position
    if step >= 0 and not end:
        raise RunError(
            f"{path} lacks the record of step {step}, which the checkpoint beside it goes on from; "
            "give --restart to begin anew"
        )
    if end < len(data):
        write_whole(path, data[:end])


def _write_all(descriptor: int, data: bytes) -> None:
    while data:
        data = data[os.write(descriptor, data) :]
    os.fsync(descriptor)


def _parse_all(lines: Sequence[bytes]) -> list[Any]:
    """What each line holds; None where it is no JSON."""
    with contextlib.suppress(ValueError, RecursionError):
        # As one array, whose objects share the texts of their keys, in half the time.
        found: list[Any] = json.loads(b"[" + b",".join(lines) + b"]")
        if len(found) == len(lines):
            return found
    return [_parse(line) for line in lines]


def _parse(line: bytes) -> Any:  # noqa: ANN401 - whatever JSON has
    with contextlib.suppress(ValueError, RecursionError):
        return json.loads(line)
    return None


def _is_record(record: object, before: Record) -> TypeGuard[Record]:
    """Whether every reader of results can use `record`; `before` is one that shares with it, or empty."""
    if not isinstance(record, dict) or not isinstance(record.get("step"), int | float):
        return False
    args = record.get("args")
    if not isinstance(args, dict):
        return False
    if args is before.get("args"):
        return True
    return all(isinstance(args.get(key), kind) for key, kind in _NEEDED_ARGS.items()) and all(
        isinstance(target, int) for target in args["test_envs"]
    )


def _share(record: Record, before: Record) -> None:
    """Let `record` have the large objects of the one `before` it: thousands have the same."""
    for key in _SHARED:
        if key in before and record.get(key) == before[key]:
            record[key] = before[key]

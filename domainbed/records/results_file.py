"""`results.jsonl`: the records of one run, one line of JSON for each checkpoint.

A line is appended as a whole and flushed to the disk. The reader tolerates a file that a crash cut short, and
files written by upstream. See docs/compatibility.md, "Records".
"""

from __future__ import annotations

import contextlib
import json
import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from domainbed.errors import RunError
from domainbed.files import write_atomic
from domainbed.json_input import NestedTooDeep, may_nest_deep, parse_json
from domainbed.records.checks import problem_of

Record = dict[str, Any]
"""One checkpoint of one run.

| key | value |
|---|---|
| `step` | index of the last update, from 0 |
| `args` | the settings of the run: `dataset`, `algorithm`, `test_envs`, `trial_seed`, `hparams_seed`, ... |
| `hparams` | its hyper-parameters |
| `env{i}_in_acc`, `env{i}_out_acc`, `env{i}_test_acc` | accuracy on a split of environment i, in [0, 1] |
| `env{i}_in_nll` and so on | metrics of `domainbed.metrics` on the same splits; may be infinite or NaN |
| `sizes` | number of samples in each split, as `env{i}_in` and so on |
| `data`, `weights` | what identifies the images and the initial weights |
| `environments` | names of all environments, in order |
| `dataset_name` | last part of the path, for a dataset named by the path of a folder or list |
| `loss` and other names | mean of what `Algorithm.update` returned, since the record before |
"""

RESULTS_FILE = "results.jsonl"
"""Name of the file in a run's directory."""

_SHARED_KEYS = ("args", "hparams", "sizes", "data", "weights", "environments")


@dataclass
class ResultsFile:
    """Content of one `results.jsonl`.

    Attributes:
        records: the records, in order. Those with equal `args` (`hparams`, `sizes`, ...) share one object.
        damaged: what is wrong with each line that is not a record, by its number, from 1.
        torn: number of the last line if a crash cut it short, else None.
    """

    records: list[Record] = field(default_factory=list)
    damaged: dict[int, str] = field(default_factory=dict)
    torn: int | None = None


def read_records(path: Path) -> ResultsFile:
    """Read every record that `path` holds, and note the lines that are not records.

    NaN and infinities are accepted, and so is a complete last line without its newline.

    Raises: OSError if the file cannot be opened or read.
    """
    content = ResultsFile()
    lines = path.read_bytes().split(b"\n")
    numbers = [number for number, line in enumerate(lines, start=1) if line.strip()]
    previous: Record = {}
    for number, record in zip(numbers, _parse_all([lines[i - 1] for i in numbers]), strict=True):
        if isinstance(record, dict):
            _share_objects(record, previous)
        problem = problem_of(record, previous)
        if not problem:
            content.records.append(record)
            previous = record
        elif number == len(lines):
            content.torn = number
        else:
            content.damaged[number] = problem
    return content


def append_record(path: Path, record: Mapping[str, object]) -> None:
    """Append `record` to `path` as one line of JSON with sorted keys, and wait until it is on the disk.

    After a torn line the record starts on a new line. If the record cannot be written as a whole, none of it
    remains in the file.

    Raises: RunError if the file cannot be written (disk full, no permission).
    """
    data = (json.dumps(record, sort_keys=True) + "\n").encode("utf-8")
    try:
        with path.open("a+b", buffering=0) as file:
            end = file.seek(0, os.SEEK_END)
            file.seek(max(end - 1, 0))
            data = data if file.read(1) in (b"", b"\n") else b"\n" + data
            try:
                _write_and_sync(file.fileno(), data)
            except OSError:
                with contextlib.suppress(OSError):
                    file.truncate(end)
                raise
    except OSError as error:
        raise RunError(
            f"cannot write {path}: {error.strerror}; free disk space or fix the permissions, and run again"
        ) from None


def drop_records_after(path: Path, step: int) -> None:
    """Remove the records after that of `step`, so that a resumed run does not record a step twice.

    Args:
        path: a `results.jsonl`. It may be missing if `step` is negative.
        step: step of the last record to keep. If negative, all records are removed.

    Raises: RunError if the file has no record of `step`.
    """
    data = path.read_bytes() if path.exists() else b""
    position = end = 0
    for line in data.splitlines(keepends=True):
        position += len(line)
        record = _parse(line)
        if step >= 0 and not problem_of(record, {}) and record["step"] == step:
            end = position
    if step >= 0 and not end:
        raise RunError(
            f"{path} lacks the record of step {step}, at which the checkpoint beside it was written; "
            "use --restart to start the run over"
        )
    if end < len(data):
        write_atomic(path, data[:end])


def _write_and_sync(descriptor: int, data: bytes) -> None:
    while data:
        data = data[os.write(descriptor, data) :]
    os.fsync(descriptor)


def _parse_all(lines: Sequence[bytes]) -> list[Any]:
    """The JSON value of each line; None if a line is not valid JSON."""
    with contextlib.suppress(ValueError, RecursionError):
        # Parsing one array takes half the time: its objects share the strings of their keys.
        values: list[Any] = json.loads(b"[" + b",".join(lines) + b"]")
        if len(values) == len(lines) and not any(map(may_nest_deep, lines)):
            return values
    return [_parse(line) for line in lines]


def _parse(line: bytes) -> Any:  # noqa: ANN401 - any JSON value
    """The JSON value of a line; None if it is not valid JSON, an error if it is nested too deep."""
    try:
        return parse_json(line)
    except NestedTooDeep as error:
        return error
    except ValueError:
        return None


def _share_objects(record: Record, previous: Record) -> None:
    """Let `record` share large values with `previous` if they are equal, as in most records of a run."""
    for key in _SHARED_KEYS:
        if key in previous and record.get(key) == previous[key]:
            record[key] = previous[key]

"""Table of gradient similarities: a CSV file with one row for each measurement, appended during training."""

from __future__ import annotations

import csv
import io
from collections.abc import Iterable
from pathlib import Path

from domainbed.errors import RunError
from domainbed.files import write_atomic
from domainbed_gs.similarity.measure import COLUMNS

NAME = "similarity.csv"
HEADER = ("step", "class", *COLUMNS)

Row = dict[str, float | str]
"""One measurement: column -> value; `class` is a name, all other values are numbers."""


def append(path: Path, row: Row) -> None:
    """Append a measurement to `path`, creating the file if necessary."""
    if not path.exists():
        write_atomic(path, _line(HEADER))
    with path.open("a", encoding="utf-8", newline="") as file:
        file.write(_line([row[name] for name in HEADER]))


def read(path: Path) -> list[Row]:
    """All measurements in `path`; an incomplete last line is ignored.

    Raises: RunError if `path` does not exist or is not a table of similarities.
    """
    header, *rows = list(csv.reader(_lines(path))) or [[]]
    if tuple(header) != HEADER or any(len(row) != len(HEADER) for row in rows):
        raise RunError(f"{path} is not a table of similarities; delete it and run again with --restart")
    return [
        {name: value if name == "class" else float(value) for name, value in zip(HEADER, row, strict=True)}
        for row in rows
    ]


def keep_before(path: Path, step: int) -> None:
    """Drop the measurements of `step` and later steps, which a run resumed at `step` repeats."""
    if path.exists():
        kept = [row for row in zip(_lines(path)[1:], read(path), strict=True) if float(row[1]["step"]) < step]
        write_atomic(path, _line(HEADER) + "".join(f"{line}\n" for line, _ in kept))


def _lines(path: Path) -> list[str]:
    """Complete lines of a table."""
    try:
        return path.read_text(encoding="utf-8").split("\n")[:-1]
    except OSError as error:
        raise RunError(f"cannot read {path}: {error.strerror}") from None


def _line(values: Iterable[object]) -> str:
    text = io.StringIO()
    csv.writer(text, lineterminator="\n").writerow(values)
    return text.getvalue()

"""Table of gradient similarities: a CSV file with one row for each measurement, appended during training."""

from __future__ import annotations

import csv
import io
from pathlib import Path

from domainbed.errors import RunError
from domainbed.escaping import csv_line
from domainbed.files import write_atomic
from domainbed_gs.similarity.measure import COLUMNS

NAME = "similarity.csv"
HEADER = ("step", "class", *COLUMNS)

Row = dict[str, float | str]
"""One measurement: column -> value; `class` is a name, all other values are numbers."""


def append(path: Path, row: Row) -> None:
    """Append a measurement to `path`, creating the file if necessary."""
    if not path.exists():
        write_atomic(path, csv_line(HEADER))
    with path.open("a", encoding="utf-8", newline="") as file:
        file.write(csv_line(row[name] for name in HEADER))


def read(path: Path) -> list[Row]:
    """All measurements in `path`; an incomplete last line is ignored.

    Raises: RunError if `path` does not exist or is not a table of similarities.
    """
    header, *rows = _rows(path) or [[]]
    if tuple(header) != HEADER or any(len(row) != len(HEADER) for row in rows):
        raise RunError(f"{path} is not a table of similarities; delete it and run again with --restart")
    return [
        {name: value if name == "class" else float(value) for name, value in zip(HEADER, row, strict=True)}
        for row in rows
    ]


def keep_before(path: Path, step: int) -> None:
    """Drop the measurements of `step` and later steps, which a run resumed at `step` repeats."""
    if path.exists():
        rows = zip(_rows(path)[1:], read(path), strict=True)
        kept = [cells for cells, row in rows if float(row["step"]) < step]
        write_atomic(path, "".join(map(csv_line, [HEADER, *kept])))


def _rows(path: Path) -> list[list[str]]:
    """Cells of the complete rows of a table. Names of classes may have line ends."""
    try:
        # Without translation of "\r": it may be part of a name.
        with path.open(encoding="utf-8", newline="") as file:
            text = file.read()
    except OSError as error:
        raise RunError(f"cannot read {path}: {error.strerror}") from None
    rows = list(csv.reader(io.StringIO(text[: text.rfind("\n") + 1], newline="")))
    if rows and len(rows[-1]) < len(rows[0]):  # cut short within a name
        rows.pop()
    return rows

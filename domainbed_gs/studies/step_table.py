"""Table of measurements during training: a CSV file whose rows are appended."""

from __future__ import annotations

import csv
import io
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from domainbed.errors import RunError
from domainbed.escaping import csv_line
from domainbed.files import write_atomic
from domainbed_gs.trained_models.table import is_number

Row = dict[str, float | str]
"""One row: column -> text or number."""


@dataclass(frozen=True)
class StepTable:
    """Columns of a table. The first one is `step`, the number of updates before the measurement.

    Attributes:
        texts: columns of text.
        numbers: columns of numbers.
        content: what the rows are, for errors.
    """

    texts: tuple[str, ...]
    numbers: tuple[str, ...]
    content: str

    @property
    def header(self) -> tuple[str, ...]:
        """All columns in order."""
        return ("step", *self.texts, *self.numbers)

    def append(self, path: Path, rows: Row | Sequence[Row]) -> None:
        """Append one row or several to `path`, creating the file if necessary."""
        if not path.exists():
            write_atomic(path, csv_line(self.header))
        lines = [rows] if isinstance(rows, dict) else rows
        with path.open("a", encoding="utf-8", newline="") as file:
            file.write("".join(csv_line(row[name] for name in self.header) for row in lines))

    def read(self, path: Path) -> list[Row]:
        """All rows in `path`; an incomplete last line is ignored.

        Raises: RunError if `path` does not exist, is not such a table, or has a text in a column of numbers.
        """
        header, *rows = _rows(path) or [[]]
        if tuple(header) != self.header or any(len(row) != len(self.header) for row in rows):
            raise RunError(f"{path} is not a table of {self.content}; delete it and run again with --restart")
        return [self._parsed(path, row) for row in rows]

    def _parsed(self, path: Path, cells: Sequence[str]) -> Row:
        row: Row = dict(zip(self.header, cells, strict=True))
        for name in ("step", *self.numbers):
            cell = str(row[name])
            if not is_number(cell):
                raise RunError(
                    f"{path} has {cell!r} in the column {name}, where a number belongs; delete it and run "
                    "again with --restart"
                )
            row[name] = float(cell)
        return row

    def keep_before(self, path: Path, step: int) -> None:
        """Drop the rows of `step` and later steps, which a run resumed at `step` repeats."""
        if path.exists():
            rows = zip(_rows(path)[1:], self.read(path), strict=True)
            kept = [cells for cells, row in rows if float(row["step"]) < step]
            write_atomic(path, "".join(map(csv_line, [self.header, *kept])))


def _rows(path: Path) -> list[list[str]]:
    """Cells of the complete rows of a table. Names of classes may have line ends."""
    try:
        # Without translation of "\r": it may be part of a name.
        with path.open(encoding="utf-8", newline="") as file:
            text = file.read()
    except OSError as error:
        raise RunError(f"cannot read {path}: {error.strerror}") from None
    except UnicodeDecodeError:
        raise RunError(f"{path} is damaged: it is no text; delete it and run again with --restart") from None
    rows = list(csv.reader(io.StringIO(text[: text.rfind("\n") + 1], newline="")))
    if rows and len(rows[-1]) < len(rows[0]):  # cut short within a name
        rows.pop()
    return rows

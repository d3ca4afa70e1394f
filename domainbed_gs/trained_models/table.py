"""A CSV file of measurements of trained models, with the rows of one model after those of another.

The first columns identify the model and the settings of the measurement (`IDENTITY`, then the study's), so
that a command that is repeated skips the models that it has measured.
"""

from __future__ import annotations

import csv
import io
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from domainbed.errors import RunError, UsageError
from domainbed.escaping import csv_line
from domainbed.files import write_atomic

if TYPE_CHECKING:
    from domainbed_gs.trained_models.loading import TrainedModel

IDENTITY = (
    *("run", "model_sha256", "dataset", "algorithm", "targets", "trial_seed", "hparams_seed", "seed", "step"),
)
"""Columns that identify a model: folder and file, SHA-256 of the file, and settings of the run.

`targets` are names of environments, joined by ", ". `step` is that in the name of a model_stepN.pkl.
"""

Row = dict[str, Any]
"""One row: column -> text or number."""


@dataclass(frozen=True)
class Layout:
    """Columns of a table.

    Attributes:
        settings: names of the settings of the measurement, the same for all rows.
        texts: columns of text.
        numbers: columns of numbers; an empty cell is NaN.
    """

    settings: tuple[str, ...]
    texts: tuple[str, ...]
    numbers: tuple[str, ...]

    @property
    def header(self) -> tuple[str, ...]:
        """All columns in order."""
        return (*IDENTITY, *self.settings, *self.texts, *self.numbers)


def identity(model: TrainedModel, name: str) -> Row:
    """The columns `IDENTITY` of a model; `name` is its row's `run`."""
    args = model.args
    stem = model.path.stem.removeprefix("model_step")
    return {
        "run": name,
        "model_sha256": model.sha256,
        "dataset": args["dataset"],
        "algorithm": args["algorithm"],
        "targets": ", ".join(model.dataset.ENVIRONMENTS[index] for index in model.targets),
        "trial_seed": str(args.get("trial_seed", 0)),
        "hparams_seed": str(args.get("hparams_seed", 0)),
        "seed": str(args.get("seed", 0)),
        "step": stem if stem.isdecimal() else "",
    }


class Table:
    """A CSV file of measurements.

    Args:
        path: the file, which need not exist.
        layout: its columns.

    Raises: UsageError if the file cannot be read, has other columns, or a text in a column of numbers.
    """

    def __init__(self, path: Path, layout: Layout) -> None:
        self.path = path
        self.layout = layout
        self._cells = _read(path, layout.header)
        self._check_numbers()

    @property
    def rows(self) -> list[Row]:
        """All rows, with numbers as floats."""
        numbers = set(self.layout.numbers)
        return [
            {
                name: (float(cell) if cell else float("nan")) if name in numbers else cell
                for name, cell in zip(self.layout.header, cells, strict=True)
            }
            for cells in self._cells
        ]

    def _check_numbers(self) -> None:
        """Raise UsageError for a cell that is no number where one belongs."""
        for name in self.layout.numbers:
            column = self.layout.header.index(name)
            for cells in self._cells:
                if not is_number(cells[column] or "nan"):
                    raise UsageError(
                        f"{self.path} has {cells[column]!r} in the column {name}, where a number belongs; "
                        "restore the file, or delete it and measure again"
                    )

    def has(self, run: str, sha256: str) -> bool:
        """Whether the table has rows of the model with this `run` and this content."""
        return any(cells[:2] == [run, sha256] for cells in self._cells)

    def check_settings(self, settings: Mapping[str, object]) -> None:
        """Raise UsageError if rows were measured with other settings."""
        start = len(IDENTITY)
        for cells in self._cells:
            before = dict(zip(self.layout.settings, cells[start:], strict=False))
            for name, value in settings.items():
                if before[name] != str(value):
                    raise UsageError(
                        f"{self.path} was measured with {name} {before[name]}, not {value}; use the same "
                        "settings, another --output_dir, or --restart to measure again"
                    )

    def replace(self, run: str, rows: Sequence[Row]) -> None:
        """Put `rows` in the place of those of `run`, at the end of the file; atomic.

        Raises: RunError if the file cannot be written.
        """
        new = [[_text(row[name]) for name in self.layout.header] for row in rows]
        others = [cells for cells in self._cells if cells[0] != run]
        if not new and len(others) == len(self._cells):
            return
        self._cells = others + new
        try:
            write_atomic(self.path, "".join(map(csv_line, [self.layout.header, *self._cells])))
        except OSError as error:
            raise RunError(f"cannot write {self.path}: {error.strerror or error}") from None


def is_number(text: str) -> bool:
    """Whether `text` is that of a number, or "nan"."""
    try:
        float(text)
    except ValueError:
        return False
    return True


def _text(value: object) -> str:
    if isinstance(value, float):
        return "" if value != value else repr(float(value))
    return str(value)


def _read(path: Path, header: tuple[str, ...]) -> list[list[str]]:
    try:
        # Without translation of "\r": it may be part of a name.
        with path.open(encoding="utf-8", newline="") as file:
            text = file.read()
    except FileNotFoundError:
        return []
    except (OSError, UnicodeDecodeError) as error:
        raise UsageError(f"cannot read {path}: {getattr(error, 'strerror', None) or error}") from None
    first, *rows = list(csv.reader(io.StringIO(text, newline=""))) or [[]]
    if tuple(first) != header or any(len(row) != len(header) for row in rows):
        raise UsageError(
            f"{path} is not a table of this measurement; delete it, or choose another --output_dir"
        )
    return rows

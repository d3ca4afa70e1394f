"""Published accuracies: a CSV file with one cell per line, and an optional TOML file about their origin.

dataset,target,method,mean,std,note          accuracies in %; std (over trials) and note may be empty
PACS,A,Agr-Sum,58.13,1.65,
PACS,Avg,Agr-Sum,65.80,,

A column `selection` restricts a line to reports with that selection method, for tables of several.

title = "Table 1 of ..."                     the TOML file; every key is optional
trials = 20
settings = 1                                 random settings of hyper-parameters that the search tried
selection = ["iccv2021"]
[args]                                       flags of the runs, by name
steps = 1000
[hparams]
lr = 1e-5
"""

from __future__ import annotations

import csv
import re
import tomllib
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from domainbed.errors import UsageError, misspelt

PACKAGED = Path(__file__).parents[1] / "data"
"""Folder of the tables that come with this package."""

REQUIRED_COLUMNS = ("dataset", "target", "method", "mean")

ALIASES = {"deepall": "erm", "dro": "groupdro", "average": "avg"}
"""Names in papers -> our names, both as `plain` returns them."""


@dataclass(frozen=True)
class PublishedCell:
    """Accuracy of a method on a target.

    Attributes:
        mean: mean accuracy in %.
        std: standard deviation over trials, in percentage points; None if not published.
        note: remark about the number; may be empty.
    """

    mean: float
    std: float | None
    note: str


@dataclass(frozen=True)
class Published:
    """A table of published accuracies.

    Attributes:
        title: title of the table, or its path.
        cells: (dataset, target, method) -> cell. Names are as `plain` returns them; target "avg" is the
            average over targets.
        trials: number of trials behind each cell; None if unknown.
        settings: number of settings of the hyper-parameters among which was selected; None if unknown.
        selection: names of selection methods that match the publication's; may be empty.
        args: flags of the published runs.
        hparams: hyper-parameters of the published runs.
    """

    title: str
    cells: Mapping[tuple[str, str, str], PublishedCell]
    trials: int | None
    settings: int | None
    selection: tuple[str, ...]
    args: Mapping[str, Any]
    hparams: Mapping[str, Any]


def plain(name: str) -> str:
    """`name` in lower case without punctuation, or our name for it: "Agr-Sum" -> "agrsum"."""
    short = re.sub(r"[^a-z0-9]", "", name.lower())
    return ALIASES.get(short, short)


def load(name: str, selection: str) -> Published:
    """Load a table.

    Args:
        name: name of a table that comes with this package, or path of a CSV file.
        selection: name of the report's selection method. Lines for another one are left out.

    Raises: UsageError if the table does not exist, cannot be read, or has no line for `selection`.
    """
    path = PACKAGED / f"{name}.csv"
    if not path.exists():
        path = Path(name)
    if not path.is_file():
        known = sorted(file.stem for file in PACKAGED.glob("*.csv"))
        raise misspelt(f"--against {name} is neither a packaged table nor a CSV file", name, known)
    origin = _read_origin(path.with_suffix(".toml"))
    return Published(
        title=origin.get("title", str(path)),
        cells=_read_cells(path, selection),
        trials=origin.get("trials"),
        settings=origin.get("settings"),
        selection=tuple(origin.get("selection", ())),
        args=origin.get("args", {}),
        hparams=origin.get("hparams", {}),
    )


def _read_origin(path: Path) -> dict[str, Any]:
    if not path.exists():
        return {}
    try:
        return tomllib.loads(path.read_text(encoding="utf-8"))
    except (OSError, tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
        raise UsageError(f"cannot read {path}, which describes the published accuracies: {error}") from None


def _read_cells(path: Path, selection: str) -> dict[tuple[str, str, str], PublishedCell]:
    try:
        lines = path.read_text(encoding="utf-8").splitlines()
    except (OSError, UnicodeDecodeError) as error:
        raise UsageError(f"cannot read the published accuracies in {path}: {error}") from None
    reader = csv.DictReader(lines)
    missing = [name for name in REQUIRED_COLUMNS if name not in (reader.fieldnames or ())]
    if missing:
        raise UsageError(
            f"{path} has no column {missing[0]}; required columns: {', '.join(REQUIRED_COLUMNS)}; optional: "
            "std, note, selection"
        )
    cells: dict[tuple[str, str, str], PublishedCell] = {}
    others: dict[str, None] = {}
    for number, row in enumerate(reader, start=2):
        if (row.get("selection") or selection) != selection:
            others[row["selection"]] = None
            continue
        try:
            std = float(row["std"]) if row.get("std") else None
            cell = PublishedCell(mean=float(row["mean"]), std=std, note=row.get("note") or "")
        except (TypeError, ValueError):
            raise UsageError(f"{path}, line {number}: mean and std must be numbers in %") from None
        cells[plain(row["dataset"]), plain(row["target"]), plain(row["method"])] = cell
    if others and not cells:
        raise UsageError(
            f"{path} has no accuracy for selection by {selection}; pass --paired_selection "
            f"{' or '.join(others)}"
        )
    return cells

"""Published numbers: a CSV with a line a cell, and a TOML file beside it that may say how they were got.

dataset,target,method,mean,std,note          accuracies in %; std (over trials) and note may be empty
PACS,A,Agr-Sum,58.13,1.65,
PACS,Avg,Agr-Sum,65.80,,

title = "Table 1 of ..."                     the TOML file; every key may be left out
trials = 20
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
NEEDED = ("dataset", "target", "method", "mean")
# Names of the papers -> ours, both as `plain` has them.
ALIASES = {"deepall": "erm", "dro": "groupdro", "average": "avg"}


@dataclass(frozen=True)
class PublishedCell:
    """A method on a target; `target` is plain "avg" for an average over targets.

    Attributes:
        mean: accuracy in %.
        std: over trials, in points; None where it is not given.
        note: what to know of the number; may be empty.
    """

    mean: float
    std: float | None
    note: str


@dataclass(frozen=True)
class Published:
    """A table of published numbers.

    Attributes:
        title: what it is.
        cells: (dataset, target, method), all as `plain` has them -> the cell.
        trials: number of trials behind each cell; None where it is not said.
        selection: names of selection methods that are the publication's; may be empty.
        args: flags of its runs.
        hparams: their hyper-parameters.
    """

    title: str
    cells: Mapping[tuple[str, str, str], PublishedCell]
    trials: int | None
    selection: tuple[str, ...]
    args: Mapping[str, Any]
    hparams: Mapping[str, Any]


def plain(name: str) -> str:
    """A name without case and punctuation, under the one that we have for it: "Agr-Sum" is "agrsum"."""
    short = re.sub(r"[^a-z0-9]", "", name.lower())
    return ALIASES.get(short, short)


def load(name: str) -> Published:
    """The table of a CSV file, or one that comes with the package, by name.

    Raises: UsageError if there is none, or it is not one.
    """
    path = PACKAGED / f"{name}.csv"
    if not path.exists():
        path = Path(name)
    if not path.is_file():
        known = sorted(file.stem for file in PACKAGED.glob("*.csv"))
        raise misspelt(f"--against {name} is neither a CSV file nor a table that we have", name, known)
    about = _about(path.with_suffix(".toml"))
    return Published(
        title=about.get("title", str(path)),
        cells=_cells(path),
        trials=about.get("trials"),
        selection=tuple(about.get("selection", ())),
        args=about.get("args", {}),
        hparams=about.get("hparams", {}),
    )


def _about(path: Path) -> dict[str, Any]:
    if not path.exists():
        return {}
    try:
        return tomllib.loads(path.read_text(encoding="utf-8"))
    except (OSError, tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
        raise UsageError(f"{path} beside the published numbers can't be read: {error}") from None


def _cells(path: Path) -> dict[tuple[str, str, str], PublishedCell]:
    try:
        lines = path.read_text(encoding="utf-8").splitlines()
    except (OSError, UnicodeDecodeError) as error:
        raise UsageError(f"published numbers {path} can't be read: {error}") from None
    reader = csv.DictReader(lines)
    missing = [name for name in NEEDED if name not in (reader.fieldnames or ())]
    if missing:
        raise UsageError(
            f"{path} lacks the column {missing[0]}; it needs {', '.join(NEEDED)}, and may have std"
        )
    cells = {}
    for number, row in enumerate(reader, start=2):
        try:
            std = float(row["std"]) if row.get("std") else None
            cell = PublishedCell(float(row["mean"]), std, row.get("note") or "")
        except (TypeError, ValueError):
            raise UsageError(f"{path}, line {number}: mean and std are numbers in %") from None
        cells[plain(row["dataset"]), plain(row["target"]), plain(row["method"])] = cell
    return cells

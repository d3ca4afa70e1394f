"""Box plots of target accuracies over trials, like Figure 3 of arXiv 2108.01621, as PNG."""

from __future__ import annotations

import re
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from domainbed.errors import RunError, UsageError
from domainbed.files import write_whole
from domainbed.results.plots import INK, PALE, PALETTE, boxes, plain_axes, png, require_matplotlib
from domainbed_gs.report.comparison import Cell, PairedReport
from domainbed_gs.report.statistics import ALPHA

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

WIDTH = 12.5
"""Of a figure at most, in inches, where one panel does not need more."""


def draw(report: PairedReport, folder: Path) -> list[Path]:
    """Write one box plot for each dataset of `report` into `folder`, which is made if it is not there.

    Returns: the files, in order of the datasets.

    Raises:
        UsageError: matplotlib is not installed, or `folder` is not a folder.
        RunError: a file cannot be written.
    """
    require_matplotlib()
    paths = [folder / name for name in file_names(report.datasets)]
    try:
        folder.mkdir(parents=True, exist_ok=True)
        for dataset, path in zip(report.datasets, paths, strict=True):
            write_whole(path, png(box_plot(dataset, report)))
    except (FileExistsError, NotADirectoryError):
        raise UsageError(f"--figures {folder} is a file; give a folder") from None
    except OSError as error:
        raise RunError(f"the figures cannot be written to {folder}: {error.strerror or error}") from None
    return paths


def file_names(datasets: Sequence[str]) -> list[str]:
    """A file name for each dataset, safe where its name is a path, and different for different datasets."""
    names: list[str] = []
    for dataset in datasets:
        stem = re.sub(r"[^\w.-]+", "_", dataset).strip("._") or "dataset"
        candidates = (f"{stem}.png", *(f"{stem}_{i}.png" for i in range(2, len(datasets) + 2)))
        names.append(next(name for name in candidates if name not in names))
    return names


def box_plot(dataset: str, report: PairedReport) -> Figure:
    """One panel for each target, one box for each method, a dot for each trial, a star where p < 0.05."""
    from matplotlib.figure import Figure

    panels: dict[int, list[Cell]] = {}
    for cell in report.of(dataset):
        if cell.target is not None:
            panels.setdefault(cell.target, []).append(cell)
    width = 0.9 + 0.52 * max(map(len, panels.values()))
    columns = min(len(panels), max(1, int(WIDTH / width)))
    rows = -(-len(panels) // columns)
    figure = Figure(figsize=(max(5.5, columns * width), 3.3 * rows + 0.6), layout="constrained")
    axes = figure.subplots(rows, columns, squeeze=False).ravel()
    for axis, panel in zip(axes, panels.values(), strict=False):
        _panel(axis, panel)
    for axis in axes[len(panels) :]:
        axis.set_axis_off()
    for axis in axes[::columns]:
        axis.set_ylabel("target accuracy (%)", color=INK)
    figure.suptitle(Path(dataset).name, color=INK, fontsize=14, fontweight="bold")
    figure.supxlabel(_caption(report, single=columns == 1), color=PALE, fontsize=8.5)
    return figure


def _caption(report: PairedReport, single: bool) -> str:
    name = report.baseline
    parts = [
        "box: quartiles and median; whiskers: up to 1.5 box lengths; dot: one trial",
        f"dashed: median of {name}; *: p < {ALPHA} against {name} (paired, uncorrected)",
    ]
    return ("\n" if single else "; ").join(parts)


def _panel(axis: Axes, cells: Sequence[Cell]) -> None:
    from matplotlib.colors import to_rgba

    positions = range(1, len(cells) + 1)
    values = [100 * np.array([cell.trials[t] for t in sorted(cell.trials)]) for cell in cells]
    drawn = boxes(axis, values, positions, widths=0.62)
    if len(values[0]):
        axis.axhline(float(np.median(values[0])), color=PALE, linewidth=0.9, linestyle=(0, (4, 3)), zorder=1)
    for position, cell, points, box in zip(positions, cells, values, drawn, strict=True):
        colour = PALETTE[(position - 1) % len(PALETTE)]
        box.set(facecolor=to_rgba(colour, 0.5), edgecolor=INK, linewidth=0.9)
        _dots(axis, position, points, colour)
        if cell.significant:
            top = (position, float(points.max()))
            axis.annotate("*", top, (0, 1), textcoords="offset points", ha="center", fontsize=16, color=INK)
    _dress(axis, cells)


def _dots(axis: Axes, position: int, points: NDArray[np.float64], colour: str) -> None:
    """One dot for each trial, side by side in the order of trials, so that equal ones stay visible."""
    offsets = np.linspace(-0.2, 0.2, len(points)) if len(points) > 1 else np.zeros(len(points))
    axis.scatter(position + offsets, points, s=15, color=colour, edgecolor=INK, linewidth=0.5, zorder=3)


def _dress(axis: Axes, cells: Sequence[Cell]) -> None:
    names = [cell.algorithm for cell in cells]
    axis.set_title(cells[0].target_name, color=INK, fontsize=12)
    axis.set_xticks(range(1, len(cells) + 1), names, rotation=35, ha="right", rotation_mode="anchor")
    axis.set_xlim(0.4, len(cells) + 0.6)
    axis.margins(y=0.12)
    plain_axes(axis)

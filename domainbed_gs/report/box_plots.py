"""Plots of target accuracies (like figure 3 of arXiv 2108.01621), as PNG files and page panels.

A box where a method has enough trials for quartiles to mean something, else its trials and their median.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from domainbed.errors import RunError, UsageError
from domainbed.files import write_atomic
from domainbed.metrics import ACCURACY, Metric
from domainbed.results.plots import (
    BLUE,
    GREY,
    INK,
    PALE,
    PALETTE,
    boxes,
    have_matplotlib,
    plain_axes,
    png,
    require_matplotlib,
)
from domainbed.results.printing import FigureData, print_panels
from domainbed_gs.report.comparison import Cell, PairedReport
from domainbed_gs.report.signed_rank import Floats
from domainbed_gs.report.statistics import ALPHA

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

LEAST_FOR_A_BOX = 8
"""Number of trials from which on a box is drawn: two for each quarter of the distribution."""

WIDTH = 0.6
"""Width of a box, where the methods are 1 apart."""

MAX_WIDTH = 12.5
"""Maximum width of a figure in inches, unless a single panel needs more."""


def write_box_plots(report: PairedReport, folder: Path) -> list[Path]:
    """Write one PNG file for each dataset of `report` into `folder`, creating the folder if necessary.

    Returns: the files, in the order of the datasets.

    Raises:
        UsageError: matplotlib is not installed, or `folder` is a file.
        RunError: a file cannot be written.
    """
    require_matplotlib()
    paths = [folder / name for name in file_names(report.datasets)]
    try:
        folder.mkdir(parents=True, exist_ok=True)
        for dataset, path in zip(report.datasets, paths, strict=True):
            write_atomic(path, png(box_plot(dataset, report)))
    except (FileExistsError, NotADirectoryError):
        raise UsageError(f"cannot write figures to {folder}: it is a file; name a folder instead") from None
    except OSError as error:
        raise RunError(f"cannot write figures to {folder}: {error.strerror or error}") from None
    return paths


def print_box_plots(report: PairedReport) -> None:
    """Print a panel for each target of `report` into a page; print nothing without matplotlib."""
    if not have_matplotlib():
        return
    caption = ". ".join(line[0].upper() + line[1:] for line in _legend(report)) + "."
    for dataset in report.datasets:
        panels: dict[str, list[Cell]] = {}
        for cell in report.of(dataset):
            panels.setdefault(cell.target_name, []).append(cell)
        drawn = [(name, target_panel(name, cells, report.metric)) for name, cells in panels.items()]
        title = f"Dataset: {dataset}, target {report.metric.title} of each trial"
        print_panels(title, drawn, caption, _data(panels, report.metric))


def _data(panels: Mapping[str, Sequence[Cell]], metric: Metric) -> FigureData:
    """The numbers of all panels, as in tables: a row for each target and trial, a column for each method."""
    methods = list(dict.fromkeys(cell.algorithm for cells in panels.values() for cell in cells))
    rows = []
    for target, cells in panels.items():
        by_method = {cell.algorithm: cell.trials for cell in cells}
        for trial in sorted({trial for trials in by_method.values() for trial in trials}):
            found = [by_method.get(method, {}).get(trial) for method in methods]
            texts = ["-" if accuracy is None else metric.text(accuracy, 2) for accuracy in found]
            rows.append([target, str(trial), *texts])
    return FigureData(["Environment", "Trial", *methods], rows)


def file_names(datasets: Sequence[str]) -> list[str]:
    """Distinct file names for datasets, safe even if a dataset's name is a path."""
    names: list[str] = []
    for dataset in datasets:
        stem = re.sub(r"[^\w.-]+", "_", dataset).strip("._") or "dataset"
        candidates = (f"{stem}.png", *(f"{stem}_{i}.png" for i in range(2, len(datasets) + 2)))
        names.append(next(name for name in candidates if name not in names))
    return names


def box_plot(dataset: str, report: PairedReport) -> Figure:
    """Figure of one dataset: a panel for each target with a vertical box, or a line, for each method.

    Each trial is a dot, and a star marks a method that is better or worse than the baseline.
    """
    from matplotlib.figure import Figure

    panels: dict[int, list[Cell]] = {}
    for cell in report.of(dataset):
        if cell.target is not None:
            panels.setdefault(cell.target, []).append(cell)
    width = 0.9 + 0.52 * max(map(len, panels.values()))
    columns = min(len(panels), max(1, int(MAX_WIDTH / width)))
    rows = -(-len(panels) // columns)
    figure = Figure(figsize=(max(5.5, columns * width), 3.3 * rows + 0.6), layout="constrained")
    axes = figure.subplots(rows, columns, squeeze=False).ravel()
    for axis, cells in zip(axes, panels.values(), strict=False):
        _draw_vertical_boxes(axis, cells, report.metric)
    for axis in axes[len(panels) :]:
        axis.set_axis_off()
    for axis in axes[::columns]:
        axis.set_ylabel(f"target {report.metric.heading}", color=INK)
    figure.suptitle(Path(dataset).name, color=INK, fontsize=14, fontweight="bold")
    figure.supxlabel(("\n" if columns == 1 else "; ").join(_legend(report)), color=PALE, fontsize=8.5)
    return figure


def _legend(report: PairedReport) -> list[str]:
    """What the marks in the panels mean."""
    most = max((len(cell.trials) for cell in report.cells), default=0)
    box = "box: quartiles and median; whiskers: up to 1.5 box lengths; " if most >= LEAST_FOR_A_BOX else ""
    fewest = min((len(cell.trials) for cell in report.cells if cell.trials), default=0)
    line = f"line: median, of fewer than {LEAST_FOR_A_BOX} trials; " if fewest < LEAST_FOR_A_BOX else ""
    p = "p" if report.correction == "none" else "Holm p"
    name = report.baseline
    return [f"{box}{line}dot: one trial", f"dashed: median of {name}; *: {p} < {ALPHA} against {name}"]


def target_panel(name: str, cells: Sequence[Cell], metric: Metric = ACCURACY) -> Figure:
    """Figure of one target, narrow enough for a phone: the methods below each other, the baseline on top.

    Each trial is a dot, and a star marks a method that is better or worse than the baseline.
    """
    from matplotlib.figure import Figure

    figure = Figure(figsize=(4.4, 0.8 + 0.3 * len(cells)), layout="constrained")
    axis = figure.subplots()
    values = [_values(cell, metric) for cell in cells]
    heights = range(len(cells))
    _draw_boxes(axis, values, heights, [GREY] + [BLUE] * (len(cells) - 1), horizontal=True)
    if len(values[0]):
        axis.axvline(float(np.median(values[0])), color=PALE, linewidth=0.9, linestyle=(0, (4, 3)), zorder=1)
    for height, points in zip(heights, values, strict=True):
        colour = GREY if height == 0 else BLUE
        axis.scatter(
            points, height + _offsets(points), s=8, color=colour, edgecolor=INK, linewidth=0.4, zorder=3
        )
    axis.set_yticks(heights, [cell.algorithm + " *" * cell.significant for cell in cells])
    axis.set_ylim(len(cells) - 0.4, -0.6)
    axis.set_title(name, color=INK, fontsize=11)
    axis.set_xlabel(f"target {metric.heading}", color=INK)
    plain_axes(axis, "x")
    return figure


def _draw_vertical_boxes(axis: Axes, cells: Sequence[Cell], metric: Metric) -> None:
    positions = range(1, len(cells) + 1)
    values = [_values(cell, metric) for cell in cells]
    colours = [PALETTE[i % len(PALETTE)] for i in range(len(cells))]
    _draw_boxes(axis, values, positions, colours)
    if len(values[0]):
        axis.axhline(float(np.median(values[0])), color=PALE, linewidth=0.9, linestyle=(0, (4, 3)), zorder=1)
    for position, cell, points, colour in zip(positions, cells, values, colours, strict=True):
        axis.scatter(
            position + _offsets(points), points, s=15, color=colour, edgecolor=INK, linewidth=0.5, zorder=3
        )
        if cell.significant:
            top = (position, float(points.max()))
            axis.annotate("*", top, (0, 1), textcoords="offset points", ha="center", fontsize=16, color=INK)
    axis.set_title(cells[0].target_name, color=INK, fontsize=12)
    names = [cell.algorithm for cell in cells]
    axis.set_xticks(positions, names, rotation=35, ha="right", rotation_mode="anchor")
    axis.set_xlim(0.4, len(cells) + 0.6)
    axis.margins(y=0.12)
    plain_axes(axis)


def _values(cell: Cell, metric: Metric) -> Floats:
    """Results (n,) in the unit of tables, in order of trials."""
    return metric.scale * np.array([cell.trials[trial] for trial in sorted(cell.trials)])


def _draw_boxes(
    axis: Axes,
    values: Sequence[Floats],
    positions: Sequence[int],
    colours: Sequence[str],
    horizontal: bool = False,
) -> None:
    """Draw a box for each method with enough trials, and a line at the median of the others."""
    from matplotlib.colors import to_rgba

    enough = [i for i, points in enumerate(values) if len(points) >= LEAST_FOR_A_BOX]
    if enough:
        orientation = "horizontal" if horizontal else "vertical"
        places = [positions[i] for i in enough]
        drawn = boxes(axis, [values[i] for i in enough], places, widths=WIDTH, orientation=orientation)
        for i, box in zip(enough, drawn, strict=True):
            box.set(facecolor=to_rgba(colours[i], 0.5), edgecolor=INK, linewidth=0.9)
    for position, points in zip(positions, values, strict=True):
        if 0 < len(points) < LEAST_FOR_A_BOX:
            ends = (position - WIDTH / 2, position + WIDTH / 2)
            line = axis.vlines if horizontal else axis.hlines
            line(float(np.median(points)), *ends, color=INK, linewidth=1.8)


def _offsets(points: Floats) -> Floats:
    """Offsets (n,) that place the dots of trials side by side, so that equal accuracies stay visible."""
    return np.linspace(-0.2, 0.2, len(points)) if len(points) > 1 else np.zeros(len(points))

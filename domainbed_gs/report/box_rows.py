"""Box plots for a page: a panel for each target, a row for each method, narrow enough for a phone."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

import numpy as np

from domainbed.results.plots import BLUE, GREY, INK, PALE, boxes, have_matplotlib, plain_axes
from domainbed.results.writing import print_panels
from domainbed_gs.report.comparison import Cell, PairedReport
from domainbed_gs.report.statistics import ALPHA

if TYPE_CHECKING:
    from matplotlib.figure import Figure


def print_boxes(report: PairedReport) -> None:
    """Print the panels of each dataset of `report` into a page; nothing where matplotlib is missing."""
    if not have_matplotlib():
        return
    caption = (
        "Box: quartiles and median; whiskers: up to 1.5 box lengths; dot: one trial. Dashed: median of "
        f"{report.baseline}; *: p < {ALPHA} against it (paired, uncorrected)."
    )
    for dataset in report.datasets:
        panels: dict[str, list[Cell]] = {}
        for cell in report.of(dataset):
            panels.setdefault(cell.target_name, []).append(cell)
        drawn = [(name, rows(name, cells)) for name, cells in panels.items()]
        print_panels(f"Dataset: {dataset}, target accuracy of each trial", drawn, caption)


def rows(name: str, cells: Sequence[Cell]) -> Figure:
    """One target: the baseline's box on top, then one for each method, a star where p < 0.05."""
    from matplotlib.colors import to_rgba
    from matplotlib.figure import Figure

    figure = Figure(figsize=(4.4, 0.8 + 0.3 * len(cells)), layout="constrained")
    axis = figure.subplots()
    values = [100 * np.array([cell.trials[trial] for trial in sorted(cell.trials)]) for cell in cells]
    heights = range(len(cells))
    drawn = boxes(axis, values, heights, widths=0.6, orientation="horizontal")
    if len(values[0]):
        axis.axvline(float(np.median(values[0])), color=PALE, linewidth=0.9, linestyle=(0, (4, 3)), zorder=1)
    for height, points, box in zip(heights, values, drawn, strict=True):
        colour = GREY if height == 0 else BLUE
        box.set(facecolor=to_rgba(colour, 0.5), edgecolor=INK, linewidth=0.9)
        # Side by side in the order of trials, so that equal ones stay visible.
        offsets = np.linspace(-0.2, 0.2, len(points)) if len(points) > 1 else np.zeros(len(points))
        axis.scatter(points, height + offsets, s=8, color=colour, edgecolor=INK, linewidth=0.4, zorder=3)
    labels = [cell.algorithm + " *" * cell.significant for cell in cells]
    axis.set_yticks(heights, labels)
    axis.set_ylim(len(cells) - 0.4, -0.6)
    axis.set_title(name, color=INK, fontsize=11)
    axis.set_xlabel("target accuracy (%)", color=INK)
    plain_axes(axis, "x")
    return figure

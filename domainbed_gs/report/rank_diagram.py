"""The critical-difference diagram (Demsar 2006, figure 1): algorithms along an axis of average ranks."""

from __future__ import annotations

from typing import TYPE_CHECKING

from domainbed.results.plots import INK, PALE
from domainbed_gs.report.ranks import Ranking

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

LINE = 0.24
"""Inches from one line of the diagram to the next."""

AXIS = 2.0
"""Inches from rank 1 to the last."""

LETTER = 0.085
"""Inches that a letter of a name takes, with some to spare."""


def diagram(ranking: Ranking) -> Figure:
    """Best rank on the left; bars join algorithms whose ranks differ by less than the critical difference."""
    from matplotlib.figure import Figure

    names, cliques = list(ranking.ranks), ranking.cliques()
    half = (len(names) + 1) // 2
    depth = len(cliques) + half + 1
    inch = (len(names) - 1) / AXIS
    side = 0.15 + LETTER * (max(map(len, names)) + len(" 10.00 "))
    figure = Figure(figsize=(AXIS + 2 * side, LINE * (depth + 4)))
    axis = figure.add_axes((0.0, 0.0, 1.0, 1.0))
    axis.set_xlim(1 - side * inch, len(names) + side * inch)
    axis.set_ylim(depth + 0.5, -3.5)
    axis.set_axis_off()
    axis.plot([1, len(names)], [0, 0], color=INK, linewidth=1.2)
    for number in range(1, len(names) + 1):
        axis.plot([number, number], [0, -0.3], color=INK, linewidth=1.2)
    for number in range(1, len(names) + 1, 1 + (len(names) - 1) // 10):
        axis.text(number, -0.5, str(number), ha="center", va="bottom", fontsize=10, color=INK)
    width = min(ranking.critical_difference, len(names) - 1)
    axis.plot([1, 1 + width], [-2.2, -2.2], color=INK, linewidth=1.2, marker="|", markersize=8)
    label = f"critical difference {ranking.critical_difference:.2f}"
    axis.text(1 + width / 2, -2.5, label, ha="center", va="bottom", fontsize=10, color=INK)
    for level, clique in enumerate(cliques, start=1):
        ends = [ranking.average(clique[0]) - 0.03 * inch, ranking.average(clique[-1]) + 0.03 * inch]
        axis.plot(ends, [0.75 * level] * 2, color=INK, linewidth=4, solid_capstyle="butt")
    top = len(cliques) + 1
    for place, name in enumerate(names[:half]):
        rank = ranking.average(name)
        _label(axis, f"{name} {rank:.2f} ", rank, 1 - 0.15 * inch, top + place, "right")
    for place, name in enumerate(reversed(names[half:])):
        rank = ranking.average(name)
        _label(axis, f" {rank:.2f} {name}", rank, len(names) + 0.15 * inch, top + place, "left")
    return figure


def _label(axis: Axes, text: str, rank: float, side: float, height: float, align: str) -> None:
    """A line down from the rank and out to the name at the side."""
    axis.plot([rank, rank, side], [0, height, height], color=PALE, linewidth=0.9)
    axis.text(side, height, text, ha=align, va="center", fontsize=10, color=INK)

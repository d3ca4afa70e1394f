"""Diagram of average ranks (Demsar 2006, figure 1): algorithms along an axis, and bars that join them."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING

from domainbed.results.plots import INK, PALE

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

LINE = 0.24
"""Distance between two lines of the diagram, in inches."""

AXIS = 2.0
"""Length of the axis, in inches."""

LETTER = 0.085
"""Width reserved for a letter of a name, in inches."""


def diagram(
    averages: Mapping[str, float], cliques: Sequence[Sequence[str]], critical_difference: float | None
) -> Figure:
    """Draw average ranks, the best on the left.

    Args:
        averages: algorithm -> average rank, best first.
        cliques: groups of algorithms that do not differ significantly, each joined by a bar. A bar has dots
            at its members if it passes over an algorithm that is not in the group.
        critical_difference: smallest significant difference of two average ranks, drawn as a scale; None if
            the test has none.
    """
    from matplotlib.figure import Figure

    names = list(averages)
    half = (len(names) + 1) // 2
    depth = len(cliques) + half + 1
    inch = (len(names) - 1) / AXIS
    side = 0.15 + LETTER * (max(map(len, names)) + len(" 10.00 "))
    figure = Figure(figsize=(AXIS + 2 * side, LINE * (depth + 4)))
    axis = figure.add_axes((0.0, 0.0, 1.0, 1.0))
    axis.set_xlim(1 - side * inch, len(names) + side * inch)
    axis.set_ylim(depth + 0.5, -3.5)
    axis.set_axis_off()
    _draw_axis(axis, len(names))
    if critical_difference is not None:
        _draw_critical_difference(axis, len(names), critical_difference)
    for level, clique in enumerate(cliques, start=1):
        bar = [averages[clique[0]] - 0.03 * inch, averages[clique[-1]] + 0.03 * inch]
        axis.plot(bar, [0.75 * level] * 2, color=INK, linewidth=4, solid_capstyle="butt")
        if len(clique) <= names.index(clique[-1]) - names.index(clique[0]):
            members = [averages[name] for name in clique]
            axis.plot(
                members, [0.75 * level] * len(members), color=INK, linestyle="", marker="o", markersize=8
            )
    top = len(cliques) + 1
    for place, name in enumerate(names[:half]):
        rank = averages[name]
        _draw_label(axis, f"{name} {rank:.2f} ", rank, 1 - 0.15 * inch, top + place, "right")
    for place, name in enumerate(reversed(names[half:])):
        rank = averages[name]
        _draw_label(axis, f" {rank:.2f} {name}", rank, len(names) + 0.15 * inch, top + place, "left")
    return figure


def _draw_axis(axis: Axes, algorithms: int) -> None:
    axis.plot([1, algorithms], [0, 0], color=INK, linewidth=1.2)
    for number in range(1, algorithms + 1):
        axis.plot([number, number], [0, -0.3], color=INK, linewidth=1.2)
    for number in range(1, algorithms + 1, 1 + (algorithms - 1) // 10):
        axis.text(number, -0.5, str(number), ha="center", va="bottom", fontsize=10, color=INK)


def _draw_critical_difference(axis: Axes, algorithms: int, critical_difference: float) -> None:
    width = min(critical_difference, algorithms - 1)
    axis.plot([1, 1 + width], [-2.2, -2.2], color=INK, linewidth=1.2, marker="|", markersize=8)
    label = f"critical difference {critical_difference:.2f}"
    axis.text(1 + width / 2, -2.5, label, ha="center", va="bottom", fontsize=10, color=INK)


def _draw_label(axis: Axes, text: str, rank: float, side: float, height: float, align: str) -> None:
    """Draw a line down from the rank and out to `side`, and the text there."""
    axis.plot([rank, rank, side], [0, height, height], color=PALE, linewidth=0.9)
    axis.text(side, height, text, ha=align, va="center", fontsize=10, color=INK)

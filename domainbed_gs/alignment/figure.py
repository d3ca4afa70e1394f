"""Figures of the distances between environments: over training, and of trained models."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from functools import partial
from statistics import fmean
from typing import TYPE_CHECKING

from domainbed.algorithms import REGISTRY
from domainbed.results.plots import INK, PALE, PALETTE, plain_axes
from domainbed_gs.alignment.comparison import AnyRow, mean_distance
from domainbed_gs.alignment.settings import ALL, CLASSIFIER, QUANTITIES
from domainbed_gs.studies.comparison import by_target, model_values, over_targets
from domainbed_gs.trained_models.table import Row

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

STYLES = {
    "source-source": ("solid", "o"),
    "source-target": ("dashed", "X"),
    "target-target": ((0, (6, 1.5, 1, 1.5)), "P"),
    "within-source": ("dotted", "_"),
    "within-target": ((0, (1, 3)), "|"),
}
"""Kind of pairs -> dashes of its curve, and marker of its value. Colours are those of methods."""

DRAWN = ("source-source", "source-target", "within-source")

CAPTION = (
    "distance |u - v|^2 / (|u|^2 + |v|^2), mean over pairs of environments; within-source: two groups of "
    "samples of one environment, what chance alone makes (tables subtract it)"
)


def training_figure(methods: Mapping[str, Sequence[Sequence[AnyRow]]], title: str) -> Figure:
    """Distances over training: a column of panels for each quantity, a row for each kind of parameters.

    Args:
        methods: method -> rows of alignment_training.csv of each of its runs.
        title: title of the figure.
    """
    everything = [row for runs in methods.values() for rows in runs for row in rows]
    figure, panels = _panels(everything, title)
    lowest = next(reversed(panels), ("", ""))[0]
    for (parameters, quantity), axis in panels.items():
        for number, (method, runs) in enumerate(methods.items()):
            colour = _colour(number, len(methods))
            for pair in DRAWN:
                steps, means = mean_curve(runs, parameters, quantity, pair)
                if not all(map(math.isnan, means)):
                    label = pair if len(methods) == 1 else f"{method}, {pair}"
                    dashes = STYLES[pair][0]
                    axis.plot(
                        steps,
                        means,
                        ".",
                        color=colour,
                        linestyle=dashes,
                        linewidth=1.6,
                        markersize=3,
                        label=label,
                    )
        if parameters == lowest:
            axis.set_xlabel("updates", color=INK)
    _add_legend(figure, panels)
    return figure


def mean_curve(
    runs: Sequence[Sequence[AnyRow]], parameters: str, quantity: str, pair: str
) -> tuple[list[float], list[float]]:
    """Steps, and the mean over runs of the mean distance over pairs of a kind at each of them.

    It is NaN where some run has no such distance, so that all means are over the same runs.
    """
    found: dict[float, list[float]] = {}
    for rows in runs:
        of_steps: dict[float, list[AnyRow]] = {}
        for row in rows:
            if row["parameters"] == parameters:
                of_steps.setdefault(float(row["step"]), []).append(row)
        for step, own in of_steps.items():
            value = mean_distance(own, quantity, pair)
            found.setdefault(step, []).append(math.nan if value is None else value)
    steps = sorted(found)
    return steps, [fmean(found[step]) if len(found[step]) == len(runs) else math.nan for step in steps]


def models_figure(rows: Sequence[Row], title: str) -> Figure:
    """Distances of trained models: a column for each method, a marker for each kind of pairs and trial."""
    figure, panels = _panels(rows, title)
    for (parameters, quantity), axis in panels.items():
        _draw_models(axis, rows, parameters, quantity)
    _add_legend(figure, panels)
    return figure


def page_panels(rows: Sequence[Row]) -> list[tuple[str, Figure]]:
    """(title, figure) of each panel of `models_figure`, for a page, whose caption is its own."""
    from matplotlib.figure import Figure

    drawn = []
    for parameters, quantity in _measured(rows):
        figure = Figure(figsize=(3.6, 3.4), layout="constrained")
        axis = figure.subplots()
        plain_axes(axis)
        _draw_models(axis, rows, parameters, quantity)
        what, which = QUANTITIES[quantity], _described(parameters)
        axis.set_title(f"{what},\n{which}", color=INK, fontsize=10)
        axis.set_ylabel("distance", color=INK)
        figure.legend(loc="outside lower center", ncols=len(DRAWN), frameon=False, fontsize=7)
        drawn.append((f"{what}, {which}", figure))
    return drawn


def _draw_models(axis: Axes, rows: Sequence[Row], parameters: str, quantity: str) -> None:
    methods = REGISTRY.order(str(row["algorithm"]) for row in rows)
    for pair in DRAWN:
        axis.plot([], [], STYLES[pair][1], color=INK, label=pair)
    for number, method in enumerate(methods):
        own = [row for row in rows if (row["parameters"], row["algorithm"]) == (parameters, method)]
        for offset, pair in enumerate(DRAWN):
            models = model_values(own, partial(mean_distance, quantity=quantity, pair=pair))
            values = list(over_targets(by_target(models)).values())
            x = number + 0.2 * (offset - 1)
            colour, marker = _colour(number, len(methods)), STYLES[pair][1]
            axis.plot([x] * len(values), values, marker, color=colour, alpha=0.5, markersize=5)
            if values:
                axis.plot([x], [fmean(values)], marker, color=INK, markersize=8)
    axis.set_xticks(range(len(methods)), methods, rotation=30, ha="right")


def _measured(rows: Sequence[AnyRow]) -> list[tuple[str, str]]:
    """The (parameters, quantity) that `rows` have, classifier first."""
    return [
        (kind, name)
        for kind in (CLASSIFIER, ALL)
        for name in QUANTITIES
        if any(row["parameters"] == kind and not math.isnan(float(row[f"{name}_distance"])) for row in rows)
    ]


def _described(parameters: str) -> str:
    return "all trained parameters" if parameters == ALL else parameters


def _panels(rows: Sequence[AnyRow], title: str) -> tuple[Figure, dict[tuple[str, str], Axes]]:
    """A figure with empty panels for the (parameters, quantity) that `rows` have, which may be none."""
    from matplotlib.figure import Figure

    found = _measured(rows)
    kinds = list(dict.fromkeys(kind for kind, _ in found))
    measured = list(dict.fromkeys(quantity for _, quantity in found))
    if not found:
        figure = Figure(figsize=(6, 1.5), layout="constrained")
        figure.suptitle(f"{title}: no distance is finite", color=INK)
        return figure, {}
    figure = Figure(figsize=(1.2 + 2.9 * len(measured), 0.9 + 2.6 * len(kinds)), layout="constrained")
    axes = figure.subplots(len(kinds), len(measured), sharex=True, squeeze=False)
    panels = {}
    for row, kind in enumerate(kinds):
        for column, quantity in enumerate(measured):
            axis = panels[kind, quantity] = axes[row][column]
            plain_axes(axis)
            if row == 0:
                axis.set_title(QUANTITIES[quantity], color=INK, fontsize=9)
        axes[row][0].set_ylabel(f"distance, {_described(kind)}", color=INK, fontsize=9)
    figure.suptitle(title, color=INK, fontsize=13, fontweight="bold")
    figure.supxlabel(CAPTION, color=PALE, fontsize=7.5)
    return figure, panels


def _add_legend(figure: Figure, panels: Mapping[tuple[str, str], Axes]) -> None:
    for axis in panels.values():
        handles, labels = axis.get_legend_handles_labels()
        if handles:
            figure.legend(handles, labels, loc="outside right center", frameon=False, fontsize=8)
            return


def _colour(number: int, methods: int) -> str:
    return PALETTE[1] if methods == 1 else PALETTE[number % len(PALETTE)]

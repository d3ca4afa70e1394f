"""Figure of the loss along random directions: one line for each environment beside the pooled one."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from domainbed.algorithms import REGISTRY
from domainbed.results.plots import INK, PALE, PALETTE, plain_axes
from domainbed_gs.sharpness.settings import POOLED, TARGET
from domainbed_gs.trained_models.table import Row

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

COLUMNS = 4
"""Most panels in a row."""

DASHES = ("solid", (0, (4, 1.5)), (0, (1, 1)), (0, (6, 1.5, 1, 1.5)), (0, (3, 1, 1, 1, 1, 1)))

CAPTION = (
    "Rise of the loss along filter-normalised random directions, averaged over directions and models. Thick: "
    "the pooled loss of the sources. With crosses: target environments."
)

Curve = tuple[NDArray[np.float64], NDArray[np.float64]]
"""Distances (T,) and rises of the loss (T,)."""

Curves = dict[tuple[str, str], Curve]
"""(role, environment) -> curve."""


def panels(rows: Sequence[Row]) -> dict[tuple[str, str, str], dict[str, Curves]]:
    """(dataset, targets, part) -> method -> curves, from rows of loss_curves.csv."""
    losses: dict[tuple[str, ...], dict[float, list[float]]] = {}
    start: dict[tuple[str, ...], float] = {}
    one_line = ("run", "part", "role", "environment", "direction")
    for row in rows:
        if row["distance"] == 0:
            start[tuple(str(row[name]) for name in one_line)] = row["loss"]
    for row in rows:
        key = tuple(
            str(row[name]) for name in ("dataset", "targets", "part", "algorithm", "role", "environment")
        )
        rise = row["loss"] - start[tuple(str(row[name]) for name in one_line)]
        losses.setdefault(key, {}).setdefault(row["distance"], []).append(rise)
    found: dict[tuple[str, str, str], dict[str, Curves]] = {}
    for (dataset, targets, part, method, role, environment), own in losses.items():
        distances = sorted(own)
        means = np.array([np.mean(own[distance]) for distance in distances])
        curves = found.setdefault((dataset, targets, part), {}).setdefault(method, {})
        curves[role, environment] = np.array(distances), means
    return {key: {name: own[name] for name in REGISTRY.order(own)} for key, own in found.items()}


def panel_title(key: tuple[str, str, str]) -> str:
    """Title of the figure for one (dataset, targets, part)."""
    dataset, targets, part = key
    return f"{Path(dataset).name}, target {targets}, part {part}" if targets else f"{dataset}, part {part}"


def curves_figure(methods: Mapping[str, Curves], title: str) -> Figure:
    """A figure with a panel for each method, four in a row; all panels have the same axes."""
    from matplotlib.figure import Figure

    columns = min(len(methods), COLUMNS)
    rows = math.ceil(len(methods) / columns)
    figure = Figure(figsize=(0.8 + 3.4 * columns, 0.9 + 3 * rows), layout="constrained")
    axes = figure.subplots(rows, columns, sharex=True, sharey=True, squeeze=False)
    drawn, empty = axes.flat[: len(methods)], axes.flat[len(methods) :]
    for axis, (method, curves) in zip(drawn, methods.items(), strict=True):
        draw_curves(axis, curves)
        axis.set_title(method, color=INK, fontsize=11)
    for axis in drawn[:-columns]:
        axis.set_xlabel("")  # a panel below has it
    for axis in drawn[-columns:]:
        axis.tick_params(labelbottom=True)
    for axis in empty:
        axis.set_axis_off()
    for axis in axes[:, 0]:
        axis.set_ylabel("rise of the loss", color=INK)
    (empty[0] if len(empty) else drawn[-1]).legend(
        *drawn[0].get_legend_handles_labels(), frameon=False, fontsize=9
    )
    figure.suptitle(title, color=INK, fontsize=13, fontweight="bold")
    figure.supxlabel(CAPTION, color=PALE, fontsize=8)
    return figure


def page_panels(methods: Mapping[str, Curves]) -> list[tuple[str, Figure]]:
    """(method, figure) for a page, whose caption is its own; all figures have the same axes."""
    from matplotlib.figure import Figure

    rises = [own[1] for curves in methods.values() for own in curves.values()]
    finite = np.concatenate([each[np.isfinite(each)] for each in rises] + [np.zeros(1)])  # as at distance 0
    margin = 0.05 * float(np.ptp(finite)) or 1.0
    drawn = []
    for method, curves in methods.items():
        figure = Figure(figsize=(3.6, 3.2), layout="constrained")
        axis = figure.subplots()
        draw_curves(axis, curves)
        axis.set_ylim(float(finite.min()) - margin, float(finite.max()) + margin)
        axis.set_ylabel("rise of the loss", color=INK)
        axis.set_title(method, color=INK, fontsize=11)
        axis.legend(frameon=False, fontsize=8)
        drawn.append((method, figure))
    return drawn


def draw_curves(axis: Axes, curves: Curves) -> None:
    """Draw the curves of one method."""
    for number, ((role, environment), (distances, rises)) in enumerate(curves.items()):
        if role == POOLED:
            axis.plot(distances, rises, color=INK, linewidth=3.2, alpha=0.55, label="pooled sources")
            continue
        axis.plot(
            distances,
            rises,
            color=PALETTE[1 + (number - 1) % (len(PALETTE) - 1)],
            linestyle=DASHES[(number - 1) % len(DASHES)],
            linewidth=1.5,
            marker="x" if role == TARGET else "",
            markersize=4,
            markevery=max(1, len(distances) // 10),
            label=f"{environment} (target)" if role == TARGET else environment,
        )
    axis.axhline(0, color=PALE, linewidth=0.8)
    axis.set_xlabel("distance (lengths of the filters)", color=INK)
    plain_axes(axis)

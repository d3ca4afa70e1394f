"""The part of a page on hyper-parameter sensitivity."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from domainbed.results.page.content import Content
from domainbed.results.page.overview import values_in_short
from domainbed.results.plots import BLUE, INK, ORANGE, have_matplotlib, plain_axes
from domainbed.results.sensitivity import LEAST, Influence, influences
from domainbed.results.settings import settings
from domainbed.results.writing import print_panels, print_paragraphs, print_table

if TYPE_CHECKING:
    from matplotlib.figure import Figure

DRAWN = 3
"""Hyper-parameters of an algorithm that get a panel: those that go with validation the most."""

CAPTION = (
    "A mark for each setting. Circles: what selection maximises (validation). Crosses: what it reports "
    "(target). Both in %, averaged over targets."
)


def write(content: Content) -> None:
    """Print a table, and the strongest hyper-parameters as scatter plots, for each dataset and algorithm."""
    by_algorithm = {key: influences(found) for key, found in settings(content.groups).items()}
    if not any(by_algorithm.values()):
        print_paragraphs(["Every run of an algorithm has the same hyper-parameters."], "html")
        return
    columns = ["Algorithm", "Hyper-parameter", "Values", "Best", "With validation", "With target", "Settings"]
    results = content.accuracies[content.selection]
    for dataset in (columns.name for columns in results.datasets):
        own = {name: by_algorithm.get((dataset, name), []) for name in results.algorithms}
        rows = [_row(name, each) for name, found in own.items() for each in found]
        if not rows:
            continue
        print_table(f"Dataset: {dataset}, hyper-parameters that vary", columns, rows, "html")
        print_paragraphs(
            [
                "With validation, with target: Spearman's rank correlation over settings of the value with "
                f"the accuracy that selection by {content.selection} maximises, and reports; a setting's "
                f"accuracies are averaged over its targets. None with fewer than {LEAST} settings.",
                "Best: in the setting with the best validation accuracy.",
            ],
            "html",
        )
        if have_matplotlib():
            panels = [
                (f"{name}, {each.name}", _panel(name, each))
                for name, found in own.items()
                for each in found[:DRAWN]
                if each.validation is not None
            ]
            print_panels(f"Dataset: {dataset}, accuracy by hyper-parameter", panels, CAPTION)


def _row(algorithm: str, it: Influence) -> list[str]:
    correlations = ["-" if each is None else f"{each:+.2f}" for each in (it.validation, it.target)]
    values = values_in_short(value for value, _, _ in it.points)
    return [algorithm, it.name, values, _short(it.best), *correlations, str(len(it.points))]


def _short(value: object) -> str:
    return f"{value:.4g}" if isinstance(value, float) else str(value)


def _panel(algorithm: str, it: Influence) -> Figure:
    from matplotlib.figure import Figure

    figure = Figure(figsize=(3.4, 2.6), layout="constrained")
    axis = figure.subplots()
    values, validation, target = np.array(it.points, dtype=np.float64).T
    axis.scatter(values, 100 * validation, s=16, color=BLUE, marker="o", label="validation")
    axis.scatter(values, 100 * target, s=20, color=ORANGE, marker="x", label="target")
    if values.min() > 0 and values.max() > 20 * values.min():
        axis.set_xscale("log")
    axis.set_title(algorithm, color=INK, fontsize=11)
    axis.set_xlabel(it.name, color=INK)
    axis.set_ylabel("accuracy (%)", color=INK)
    plain_axes(axis)
    axis.legend(frameon=False, fontsize=8)
    return figure

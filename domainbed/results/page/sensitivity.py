"""The part of a page on hyper-parameter sensitivity: rank correlations over the settings of a search."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from domainbed.hparams import Value
from domainbed.results.hparam_search import HparamSetting, hparam_settings
from domainbed.results.page.content import PageContent
from domainbed.results.page.overview import short_values
from domainbed.results.plots import BLUE, INK, ORANGE, have_matplotlib, plain_axes
from domainbed.results.printing import FigureData, print_panels, print_paragraphs, print_section_table

if TYPE_CHECKING:
    from matplotlib.figure import Figure

FEWEST_SETTINGS = 4
"""Number of settings from which on a correlation is computed."""

MOST_PANELS = 3
"""Number of panels for each algorithm: those of its most influential hyper-parameters."""

_COLUMNS = [
    "Algorithm", "Hyper-parameter", "Values", "Best",
    "Correlation with validation", "Correlation with target", "Settings",
]  # fmt: skip

_CAPTION = (
    "One mark for each setting. Circles: the accuracy that selection maximises (validation). Crosses: the "
    "accuracy that it reports (target). Both in %, averaged over targets."
)


@dataclass(frozen=True)
class HparamInfluence:
    """One hyper-parameter that varies over the settings of a search.

    Attributes:
        name: name of the hyper-parameter.
        points: (value, validation accuracy, target accuracy) of each setting.
        best: value in the setting with the largest validation accuracy.
        validation: Spearman's rank correlation with the validation accuracy; None if it is undefined.
        target: Spearman's rank correlation with the target accuracy; None if it is undefined.
    """

    name: str
    points: list[tuple[Value, float, float]]
    best: Value
    validation: float | None
    target: float | None


def hparam_influences(settings: Sequence[HparamSetting]) -> list[HparamInfluence]:
    """The hyper-parameters that vary over `settings`, by descending correlation with validation accuracy."""
    usable = [setting for setting in settings if not math.isnan(setting.val_acc)]
    if not usable:
        return []
    best = max(usable, key=lambda setting: setting.val_acc).hparams
    influences = []
    for name in sorted(best):
        points = [
            (setting.hparams[name], setting.val_acc, setting.test_acc)
            for setting in usable
            if name in setting.hparams
        ]
        values = [value for value, _, _ in points]
        if len(points) == len(usable) and len(set(values)) > 1:
            influence = HparamInfluence(
                name=name,
                points=points,
                best=best[name],
                validation=rank_correlation(values, [validation for _, validation, _ in points]),
                target=rank_correlation(values, [target for _, _, target in points]),
            )
            influences.append(influence)
    return sorted(influences, key=lambda influence: -abs(influence.validation or 0.0))


def rank_correlation(values: Sequence[Value], accuracies: Sequence[float]) -> float | None:
    """Spearman's rank correlation, in [-1, 1].

    None if values are strings, settings fewer than `FEWEST_SETTINGS`, or accuracies all equal.
    """
    if any(isinstance(value, str) for value in values):
        return None
    if len(values) < FEWEST_SETTINGS or len(set(accuracies)) < 2:
        return None
    from scipy.stats import rankdata

    return float(np.corrcoef(rankdata(np.array(values, dtype=np.float64)), rankdata(accuracies))[0, 1])


def write(content: PageContent) -> None:
    """Print a table and scatter plots of the hyper-parameters that vary, for each dataset."""
    influences = {
        key: hparam_influences(settings) for key, settings in hparam_settings(content.candidates).items()
    }
    if not any(influences.values()):
        print_paragraphs(["All runs of an algorithm have the same hyper-parameters."], "html")
        return
    results = content.accuracies[content.selection]
    for dataset in (shown.name for shown in results.datasets):
        varying = [(algorithm, influences.get((dataset, algorithm), [])) for algorithm in results.algorithms]
        rows = [_row(algorithm, influence) for algorithm, found in varying for influence in found]
        if rows:
            print_section_table(f"Dataset: {dataset}, hyper-parameters that vary", _COLUMNS, rows, "html")
            print_paragraphs(_explanation(content.selection), "html")
        if rows and have_matplotlib():
            panels = [
                (f"{algorithm}, {influence.name}", _panel(algorithm, influence))
                for algorithm, found in varying
                for influence in found[:MOST_PANELS]
                if influence.validation is not None
            ]
            shown = [(algorithm, each) for algorithm, found in varying for each in found[:MOST_PANELS]]
            title = f"Dataset: {dataset}, accuracy by hyper-parameter"
            print_panels(title, panels, _CAPTION, _figure_data(shown))


def _figure_data(shown: Sequence[tuple[str, HparamInfluence]]) -> FigureData:
    """The points of all panels, a row for each setting."""
    rows = [
        [algorithm, influence.name, f"{value:.6g}", f"{100 * validation:.2f}", f"{100 * target:.2f}"]
        for algorithm, influence in shown
        if influence.validation is not None
        for value, validation, target in influence.points
    ]
    return FigureData(["Algorithm", "Hyper-parameter", "Value", "Validation (%)", "Target (%)"], rows)


def _explanation(selection: str) -> list[str]:
    return [
        "Correlation: Spearman's rank correlation, over settings, between the hyper-parameter and the "
        f"accuracy that selection by {selection} maximises (validation) or reports (target). The "
        f"accuracies of a setting are averaged over targets. At least {FEWEST_SETTINGS} settings are needed.",
        "Best: value in the setting with the best validation accuracy.",
    ]


def _row(algorithm: str, influence: HparamInfluence) -> list[str]:
    best = f"{influence.best:.4g}" if isinstance(influence.best, float) else str(influence.best)
    return [
        algorithm,
        influence.name,
        short_values(value for value, _, _ in influence.points),
        best,
        _correlation(influence.validation),
        _correlation(influence.target),
        str(len(influence.points)),
    ]


def _correlation(value: float | None) -> str:
    return "-" if value is None else f"{value:+.2f}"


def _panel(algorithm: str, influence: HparamInfluence) -> Figure:
    from matplotlib.figure import Figure

    figure = Figure(figsize=(3.4, 2.6), layout="constrained")
    axis = figure.subplots()
    values, validation, target = np.array(influence.points, dtype=np.float64).T
    axis.scatter(values, 100 * validation, s=16, color=BLUE, marker="o", label="validation")
    axis.scatter(values, 100 * target, s=20, color=ORANGE, marker="x", label="target")
    if values.min() > 0 and values.max() > 20 * values.min():
        axis.set_xscale("log")
    axis.set_title(algorithm, color=INK, fontsize=11)
    axis.set_xlabel(influence.name, color=INK)
    axis.set_ylabel("accuracy (%)", color=INK)
    plain_axes(axis)
    axis.legend(frameon=False, fontsize=8)
    return figure

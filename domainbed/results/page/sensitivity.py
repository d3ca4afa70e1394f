"""The part of a page on hyper-parameter sensitivity: rank correlations over the settings of a search."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from domainbed.hparams import Value
from domainbed.metrics import ACCURACY
from domainbed.model_selection import SelectionMethod
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
    "One mark for each setting. Circles: what selection goes by (validation). Crosses: the accuracy that it "
    "reports (target). Averaged over targets."
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
    results, method = content.accuracies[content.selection], content.methods[content.selection]
    for dataset in (shown.name for shown in results.datasets):
        varying = [(algorithm, influences.get((dataset, algorithm), [])) for algorithm in results.algorithms]
        rows = [_row(algorithm, influence) for algorithm, found in varying for influence in found]
        if rows:
            print_section_table(f"Dataset: {dataset}, hyper-parameters that vary", _COLUMNS, rows, "html")
            print_paragraphs(_explanation(content.selection, method), "html")
        if rows and have_matplotlib():
            panels = [
                (f"{algorithm}, {influence.name}", _panel(algorithm, influence, method))
                for algorithm, found in varying
                for influence in found[:MOST_PANELS]
                if influence.validation is not None
            ]
            shown = [(algorithm, each) for algorithm, found in varying for each in found[:MOST_PANELS]]
            title = f"Dataset: {dataset}, accuracy by hyper-parameter"
            print_panels(title, panels, _CAPTION, _figure_data(shown, method))


def _figure_data(shown: Sequence[tuple[str, HparamInfluence]], method: type[SelectionMethod]) -> FigureData:
    """The points of all panels, a row for each setting."""
    criterion = method.criterion
    digits = 2 + criterion.extra_digits
    rows = [
        [
            algorithm,
            influence.name,
            f"{value:.6g}",
            f"{method.criterion_in_unit(validation):.{digits}f}",
            f"{100 * target:.2f}",
        ]
        for algorithm, influence in shown
        if influence.validation is not None
        for value, validation, target in influence.points
    ]
    header = f"Validation ({criterion.unit})"
    return FigureData(["Algorithm", "Hyper-parameter", "Value", header, "Target (%)"], rows)


def _explanation(selection: str, method: type[SelectionMethod]) -> list[str]:
    criterion = method.criterion
    if criterion is not ACCURACY:
        maximised = criterion.title if criterion.larger_is_better else f"negative of the {criterion.title}"
        return [
            "Correlation: Spearman's rank correlation, over settings, between the hyper-parameter and the "
            f"{maximised} that selection by {selection} maximises (validation), or the accuracy that it "
            f"reports (target), averaged over targets. At least {FEWEST_SETTINGS} settings are needed.",
            "Best: value in the setting with the best validation.",
        ]
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


def _panel(algorithm: str, influence: HparamInfluence, method: type[SelectionMethod]) -> Figure:
    from matplotlib.figure import Figure

    figure = Figure(figsize=(3.4, 2.6), layout="constrained")
    axis = figure.subplots()
    values, validation, target = np.array(influence.points, dtype=np.float64).T
    other = axis if method.criterion is ACCURACY else axis.twinx()
    validation = method.criterion_in_unit(1.0) * validation
    other.scatter(values, validation, s=16, color=BLUE, marker="o", label="validation")
    axis.scatter(values, 100 * target, s=20, color=ORANGE, marker="x", label="target")
    if values.min() > 0 and values.max() > 20 * values.min():
        axis.set_xscale("log")
    axis.set_title(algorithm, color=INK, fontsize=11)
    axis.set_xlabel(influence.name, color=INK)
    axis.set_ylabel("accuracy (%)", color=INK)
    plain_axes(axis)
    axis.legend(frameon=False, fontsize=8)
    if other is not axis:
        other.set_ylabel(f"validation: {method.criterion.heading}", color=BLUE, fontsize=8)
        other.legend(frameon=False, fontsize=8, loc="lower right")
    return figure

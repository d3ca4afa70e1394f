"""The part of a page with learning curves: one panel for each algorithm."""

from __future__ import annotations

from collections import defaultdict
from typing import TYPE_CHECKING

import numpy as np

from domainbed.metrics import Metric, get_metric
from domainbed.results.curves import (
    LearningCurve,
    curve_data,
    draw_curve,
    learning_curve,
    on_targets,
    source_validation,
)
from domainbed.results.hparam_search import Candidate, of_complete_trials
from domainbed.results.page.content import PageContent
from domainbed.results.plots import BLUE, INK, ORANGE, PALE, have_matplotlib, plain_axes
from domainbed.results.printing import print_panels, print_paragraphs

if TYPE_CHECKING:
    from matplotlib.figure import Figure


def write(content: PageContent) -> None:
    """Print the reported metric on sources (validation) and targets over the updates, for each dataset."""
    if not have_matplotlib():
        return
    name = content.context.metric
    metric = get_metric(name)
    selected: dict[str, dict[str, list[Candidate]]] = defaultdict(lambda: defaultdict(list))
    for best, *_ in content.candidates:
        selected[best.dataset][best.algorithm].append(best)
    for of_dataset in selected.values():
        _drop_partial_trials(of_dataset)
    if not selected:
        print_paragraphs(["No run has a result under the first selection method."], "html")
    results = content.accuracies[content.selection]
    for dataset in (shown.name for shown in results.datasets if shown.name in selected):
        curves = {}
        for algorithm in results.algorithms:
            if selected[dataset].get(algorithm):
                runs = [(candidate.trial, candidate.run) for candidate in selected[dataset][algorithm]]
                curves[algorithm] = (
                    learning_curve(runs, source_validation(name)),
                    learning_curve(runs, on_targets(name)),
                )
        if not curves:
            print_paragraphs([f"No algorithm has a trial with all targets of {dataset}."], "html")
            continue
        first = next(iter(curves))
        limits = _limits([curve for pair in curves.values() for curve in pair if curve is not None], metric)
        if limits is None:
            print_paragraphs([f"No record of {dataset} has the {metric.title}."], "html")
            continue
        panels = [
            (
                algorithm,
                _panel(
                    algorithm,
                    validation=validation,
                    target=target,
                    reference=curves[first][1] if algorithm != first else None,
                    limits=limits,
                    label=metric.heading,
                ),
            )
            for algorithm, (validation, target) in curves.items()
        ]
        print_panels(
            f"Dataset: {dataset}, {metric.title} over the updates",
            panels,
            _caption(content, first, metric),
            curve_data(
                [
                    ([algorithm, kind], curve)
                    for algorithm, pair in curves.items()
                    for kind, curve in zip(("source validation", "target"), pair, strict=True)
                    if curve is not None
                ],
                ["Algorithm", metric.capitalized],
                digits=2 + metric.extra_digits,
            ),
        )


def _drop_partial_trials(selected: dict[str, list[Candidate]]) -> None:
    """Keep the trials of each algorithm that have all targets which some algorithm has."""
    targets = {candidate.target for candidates in selected.values() for candidate in candidates}
    for algorithm, candidates in selected.items():
        selected[algorithm] = of_complete_trials(candidates, targets)


def _caption(content: PageContent, first: str, metric: Metric) -> str:
    return (
        f"Solid, circles: mean {metric.title} on the validation (out) splits of the sources. Dashed, "
        f"squares: {metric.title} on the target, averaged over targets in the trials that have all: on its "
        "test split if it has one, else on its in-split. "
        f"Dotted: the target {metric.title} of {first}, for comparison. Band: standard error over trials. "
        f"Runs: those with the hyper-parameters that selection by {content.selection} chose."
    )


def _limits(curves: list[LearningCurve], metric: Metric) -> tuple[float, float] | None:
    """Limits of the y axis, shared by all panels; None if no curve has a finite number."""
    ends = [end for curve in curves for end in (curve.means - curve.errors, curve.means + curve.errors)]
    every = np.concatenate([[], *ends])
    finite = every[np.isfinite(every)]
    if not len(finite):
        return None
    low, high = float(finite.min()), float(finite.max())
    margin = 2.0 if metric.unit == "%" else 0.05 * (high - low) or 1.0
    return low - margin, high + margin


def _panel(
    algorithm: str,
    *,
    validation: LearningCurve | None,
    target: LearningCurve | None,
    reference: LearningCurve | None,
    limits: tuple[float, float],
    label: str,
) -> Figure:
    from matplotlib.figure import Figure

    figure = Figure(figsize=(3.4, 2.6), layout="constrained")
    axis = figure.subplots()
    if reference is not None:
        axis.plot(reference.steps, reference.means, color=PALE, linestyle="dotted", linewidth=1.4)
    if validation is not None:
        draw_curve(axis, validation, "source validation", color=BLUE, dashes="solid", marker="o")
    if target is not None:
        draw_curve(axis, target, "target", color=ORANGE, dashes="dashed", marker="s")
    axis.set_ylim(limits)
    axis.set_title(algorithm, color=INK, fontsize=11)
    axis.set_xlabel("updates", color=INK)
    axis.set_ylabel(label, color=INK)
    plain_axes(axis)
    axis.legend(frameon=False, fontsize=8)
    return figure

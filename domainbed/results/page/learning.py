"""The part of a page with learning curves: a panel for each algorithm."""

from __future__ import annotations

from collections import defaultdict
from typing import TYPE_CHECKING

from domainbed.results.curves import Curve, curve, draw_curve, source_validation, target_accuracy
from domainbed.results.page.content import Content
from domainbed.results.plots import BLUE, INK, ORANGE, PALE, have_matplotlib, plain_axes
from domainbed.results.settings import Candidate
from domainbed.results.writing import print_panels, print_paragraphs

if TYPE_CHECKING:
    from matplotlib.figure import Figure


def write(content: Content) -> None:
    """Print, for each dataset, source validation and target accuracy over the updates."""
    if not have_matplotlib():
        return
    chosen: dict[str, dict[str, list[Candidate]]] = defaultdict(lambda: defaultdict(list))
    for group in content.groups:
        chosen[group[0].dataset][group[0].algorithm].append(group[0])
    if not chosen:
        print_paragraphs(["No run has a result by this selection."], "html")
    results = content.accuracies[content.selection]
    for dataset in (columns.name for columns in results.datasets if columns.name in chosen):
        of_algorithm = chosen[dataset]
        curves = {
            name: (
                curve([(it.trial, it.run) for it in of_algorithm[name]], source_validation),
                curve([(it.trial, it.run) for it in of_algorithm[name]], target_accuracy),
            )
            for name in results.algorithms
            if name in of_algorithm
        }
        first = next(iter(curves))
        limits = _limits([it for pair in curves.values() for it in pair if it is not None])
        panels = [
            (name, _panel(name, *pair, (first, curves[first][1]), limits)) for name, pair in curves.items()
        ]
        print_panels(f"Dataset: {dataset}, accuracy over the updates", panels, _caption(content, first))


def _caption(content: Content, first: str) -> str:
    return (
        "Solid, circles: mean accuracy on the validation (out) splits of the sources. Dashed, squares: "
        "accuracy on the target, averaged over targets: on its test split where there is one, else on its "
        "in-split. "
        f"Dotted: the target accuracy of {first} again. Band: standard error over trials. Runs: those that "
        f"selection by {content.selection} chose among hyper-parameters."
    )


def _limits(curves: list[Curve]) -> tuple[float, float]:
    """The same for all panels."""
    low = min(float((it.means - it.errors).min()) for it in curves)
    high = max(float((it.means + it.errors).max()) for it in curves)
    return low - 2, high + 2


def _panel(
    name: str,
    validation: Curve | None,
    target: Curve | None,
    reference: tuple[str, Curve | None],
    limits: tuple[float, float],
) -> Figure:
    from matplotlib.figure import Figure

    figure = Figure(figsize=(3.4, 2.6), layout="constrained")
    axis = figure.subplots()
    if reference[1] is not None and reference[0] != name:
        axis.plot(reference[1].steps, reference[1].means, color=PALE, linestyle="dotted", linewidth=1.4)
    if validation is not None:
        draw_curve(axis, validation, "source validation", BLUE, "solid", "o")
    if target is not None:
        draw_curve(axis, target, "target", ORANGE, "dashed", "s")
    axis.set_ylim(limits)
    axis.set_title(name, color=INK, fontsize=11)
    axis.set_xlabel("updates", color=INK)
    axis.set_ylabel("accuracy (%)", color=INK)
    plain_axes(axis)
    axis.legend(frameon=False, fontsize=8)
    return figure

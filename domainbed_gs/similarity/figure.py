"""Figure of gradient similarities during training, like figure 2 of arXiv 2108.01621."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

from domainbed.results.plots import BLUE, GREY, INK, ORANGE, PALE, plain_axes
from domainbed_gs.similarity.measure import KINDS
from domainbed_gs.similarity.summary import agreement_by_chance, window_means
from domainbed_gs.studies.step_table import Row

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

# Different lightness and dashes, for colour-blind readers.
STYLES = {"within": (BLUE, "solid"), "between": (ORANGE, "dashed")}


def similarity_figure(rows: Sequence[Row], title: str, environments: int) -> Figure:
    """Figure with cosines in one panel and shares of equal signs in another.

    Args:
        rows: at least one measurement.
        title: title of the figure.
        environments: number K of source environments.
    """
    from matplotlib.figure import Figure

    figure = Figure(figsize=(10, 3.9), layout="constrained")
    cosines, signs = figure.subplots(1, 2)
    for kind in KINDS:
        colour, dashes = STYLES[kind]
        _draw_curve(cosines, rows, f"{kind}_cosine", f"{kind} environments", colour, dashes)
        _draw_curve(signs, rows, f"{kind}_agreement", f"two samples {kind} environments", colour, dashes)
    _draw_curve(signs, rows, "consensus", f"means of the {environments} environments", GREY, "dotted")
    cosines.axhline(0, color=PALE, linewidth=0.9)
    for kind in (*KINDS, "consensus"):
        signs.axhline(agreement_by_chance(rows, kind, environments), color=PALE, linewidth=0.9)
    _label_axes(cosines, "cosine similarity of gradients")
    _label_axes(signs, "share of components with equal signs")
    figure.suptitle(title, color=INK, fontsize=14, fontweight="bold")
    caption = (
        "curve: mean over successive measurements, each of one class; band: one standard error; thin lines: "
        "values expected by chance"
    )
    figure.supxlabel(caption, color=PALE, fontsize=8.5)
    return figure


def _draw_curve(axis: Axes, rows: Sequence[Row], column: str, label: str, colour: str, dashes: str) -> None:
    window = window_means(rows, column)
    axis.plot(window.steps, window.means, color=colour, linestyle=dashes, linewidth=1.8, label=label)
    low, high = window.means - window.errors, window.means + window.errors
    axis.fill_between(window.steps, low, high, color=colour, alpha=0.25, lw=0)


def _label_axes(axis: Axes, quantity: str) -> None:
    axis.set_xlabel("updates", color=INK)
    axis.set_ylabel(quantity, color=INK)
    plain_axes(axis)
    axis.legend(frameon=False, fontsize=9)

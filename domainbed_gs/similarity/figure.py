"""Curves of similarities over training, like Figure 2 of arXiv 2108.01621, as PNG."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

from domainbed.results.plots import BLUE, GREY, INK, ORANGE, PALE, plain_axes, png, require_matplotlib
from domainbed_gs.similarity.measure import KINDS
from domainbed_gs.similarity.summary import curve
from domainbed_gs.similarity.table import Row

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

# Colours of differing lightness, and dashes, for readers who don't see colours.
STYLES: dict[str, tuple[str, str]] = dict(zip(KINDS, ((BLUE, "solid"), (ORANGE, "dashed")), strict=True))


def draw(rows: Sequence[Row], title: str, environments: int) -> bytes:
    """The figure of a study as PNG; raises UsageError where matplotlib is not installed."""
    require_matplotlib()
    return png(curves(rows, title, environments))


def curves(rows: Sequence[Row], title: str, environments: int) -> Figure:
    """Cosines in one panel, shares of agreeing signs in another.

    Args:
        rows: the measurements, one at least.
        title: of the figure.
        environments: K, of which the consensus is.
    """
    from matplotlib.figure import Figure

    figure = Figure(figsize=(10, 3.9), layout="constrained")
    cosines, signs = figure.subplots(1, 2)
    for kind in KINDS:
        _draw_curve(cosines, rows, f"{kind}_cosine", f"{kind} environments", *STYLES[kind])
        _draw_curve(signs, rows, f"{kind}_agreement", f"two samples {kind} environments", *STYLES[kind])
    _draw_curve(signs, rows, "consensus", f"means of the {environments} environments", GREY, "dotted")
    cosines.axhline(0, color=PALE, linewidth=0.9)
    for chance in (0.5, 2.0 ** (1 - environments)):
        signs.axhline(chance, color=PALE, linewidth=0.9)
    _dress(cosines, "cosine similarity of gradients")
    _dress(signs, "share of components with equal signs")
    figure.suptitle(title, color=INK, fontsize=14, fontweight="bold")
    caption = "curve: mean over successive measurements, each of one class; band: one standard error"
    figure.supxlabel(f"{caption}; thin lines: no similarity, agreement by chance", color=PALE, fontsize=8.5)
    return figure


def _draw_curve(axis: Axes, rows: Sequence[Row], column: str, label: str, colour: str, dashes: str) -> None:
    it = curve(rows, column)
    axis.plot(it.steps, it.means, color=colour, linestyle=dashes, linewidth=1.8, label=label)
    axis.fill_between(it.steps, it.means - it.errors, it.means + it.errors, color=colour, alpha=0.25, lw=0)


def _dress(axis: Axes, what: str) -> None:
    axis.set_xlabel("updates", color=INK)
    axis.set_ylabel(what, color=INK)
    plain_axes(axis)
    axis.legend(frameon=False, fontsize=9)

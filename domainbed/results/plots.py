"""Style and output formats of figures.

Figures are matplotlib `Figure` objects, made without pyplot: no display and no global state.
"""

from __future__ import annotations

import io
import os
import re
import sys
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any, Literal
from xml.etree import ElementTree

from domainbed.errors import UsageError
from domainbed.escaping import visible
from domainbed.results.figure_text import FONT, drawable

if TYPE_CHECKING:
    import numpy as np
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure
    from matplotlib.patches import PathPatch

DPI = 150
"""Resolution of PNG files."""

PALETTE = ("#8C8C8C", "#0072B2", "#E69F00", "#009E73", "#CC79A7", "#56B4E9", "#D55E00", "#F0E442")
"""The colour-blind-safe palette of Okabe and Ito (2008), with grey first, for the baseline.

Neighbouring colours differ in lightness.
"""

GREY, BLUE, ORANGE = PALETTE[:3]

INK = "#262626"
PALE = "#6B6B6B"
GRID = "#E6E6E6"

PAGE_COLOURS = {
    INK.lower(): "var(--ink)",
    "#000000": "var(--ink)",
    PALE.lower(): "var(--pale)",
    GRID.lower(): "var(--line)",
    "#ffffff": "none",
}
"""Colours of a figure that follow those of the page, which may be light or dark."""

HOW_TO_GET = "figures need matplotlib, which is not installed: pip install 'domainbed-gs[plots]'"


def have_matplotlib() -> bool:
    """Whether matplotlib can be imported."""
    try:
        _import_matplotlib()
    except ImportError:
        return False
    return True


def _import_matplotlib() -> None:
    """Import matplotlib, whatever backend MPLBACKEND names: our figures are drawn into files, without it.

    A notebook sets this variable for all processes that it starts, also where its backend is not installed.
    """
    try:
        import matplotlib.figure
    except ValueError:
        backend = os.environ.pop("MPLBACKEND")
        for name in [name for name in sys.modules if name.partition(".")[0] == "matplotlib"]:
            del sys.modules[name]  # the failed import has left parts of the package
        try:
            import matplotlib.figure  # noqa: F401
        finally:
            os.environ["MPLBACKEND"] = backend


def require_matplotlib() -> None:
    """Raise UsageError, with the command that installs matplotlib, if matplotlib is missing."""
    if not have_matplotlib():
        raise UsageError(HOW_TO_GET)


def plain_axes(axis: Axes, grid: Literal["x", "y", "both"] = "y") -> None:
    """Apply the style of all panels: no frame, and a pale grid behind the data at the ticks of `grid`."""
    axis.grid(axis=grid, color=GRID, linewidth=0.8)
    axis.set_axisbelow(True)
    axis.tick_params(colors=INK, length=3)
    axis.spines[["top", "right"]].set_visible(False)


def png(figure: Figure) -> bytes:
    """The figure as the bytes of a PNG file."""
    from matplotlib.backends.backend_agg import FigureCanvasAgg

    FigureCanvasAgg(figure)
    image = io.BytesIO()
    with drawable(figure, embeds_glyphs=True):
        figure.savefig(image, format="png", dpi=DPI)
    return image.getvalue()


def inline_svg(figure: Figure, label: str) -> str:
    """The figure as an `<svg>` element, which shrinks with the page and takes its colours. Text stays text.

    Args:
        figure: the figure. The result is a function of its content and of `label`.
        label: description of the figure for screen readers, unique on the page.
    """
    import matplotlib
    from matplotlib.backends.backend_svg import FigureCanvasSVG

    label = visible(label)
    FigureCanvasSVG(figure)
    file = io.BytesIO()
    # The salt makes the ids of markers and clip paths unique on the page.
    settings: Any = {"svg.fonttype": "none", "svg.hashsalt": label, "font.sans-serif": [FONT]}
    with matplotlib.rc_context(settings), drawable(figure, embeds_glyphs=False):
        figure.savefig(file, format="svg", metadata=dict.fromkeys(("Creator", "Date", "Format", "Type")))
    root = ElementTree.fromstring(file.getvalue())
    for element in root.iter():
        element.tag = _local(element.tag)
        element.attrib = {_local(name): value for name, value in element.attrib.items()}
        if "style" in element.attrib:
            element.attrib["style"] = _page_colours(element.attrib["style"])
        element.text, element.tail = (text and text.strip() for text in (element.text, element.tail))
        if element.tag == "g":
            element.attrib.pop("id", None)  # repeats in every figure, and nothing refers to it
    for definitions in root.findall("defs"):
        root.remove(definitions)  # a style sheet, which would apply to the whole page
    width = root.attrib.pop("width")
    del root.attrib["height"], root.attrib["version"]
    root.attrib |= {"role": "img", "aria-label": label, "style": f"max-width:{width}"}
    return ElementTree.tostring(root, encoding="unicode")


def _page_colours(style: str) -> str:
    """A style attribute with the colours of the page in place of those in `PAGE_COLOURS`."""
    return re.sub(
        r"#[0-9a-f]{6}\b",
        lambda found: PAGE_COLOURS.get(found[0].lower(), found[0]),
        style,
        flags=re.IGNORECASE,
    )


def _local(name: str) -> str:
    """Name of an XML element or attribute without its namespace."""
    return name.rpartition("}")[2]


def boxes(
    axis: Axes,
    values: Sequence[np.ndarray],
    positions: Sequence[int],
    **options: Any,  # noqa: ANN401 - passed to matplotlib
) -> list[PathPatch]:
    """Draw box plots without fliers and return the boxes, to be coloured.

    Args:
        axis: the axes to draw on.
        values: one array of values for each box.
        positions: one position for each box.
        options: further arguments of `Axes.boxplot`.
    """
    line = {"color": INK, "linewidth": 0.9}
    drawn = axis.boxplot(
        values,
        positions=positions,
        patch_artist=True,
        showfliers=False,  # figures draw each trial as a dot
        medianprops={"color": INK, "linewidth": 1.8},
        whiskerprops=line,
        capprops=line,
        **options,
    )
    found: list[PathPatch] = drawn["boxes"]
    return found

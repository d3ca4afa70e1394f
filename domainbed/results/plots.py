"""How figures of reports look, and what they are written as.

Drawn on matplotlib's Figure without pyplot: no display, no global state.
"""

from __future__ import annotations

import io
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any, Literal
from xml.etree import ElementTree

from domainbed.errors import UsageError

if TYPE_CHECKING:
    import numpy as np
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure
    from matplotlib.patches import PathPatch

DPI = 150

PALETTE = ("#8C8C8C", "#0072B2", "#E69F00", "#009E73", "#CC79A7", "#56B4E9", "#D55E00", "#F0E442")
"""Okabe and Ito's colours, which colour-blind readers tell apart, in an order of differing lightness;
grey for the baseline, which comes first."""

GREY, BLUE, ORANGE = PALETTE[:3]

INK = "#262626"
PALE = "#6B6B6B"

HOW_TO_GET = "figures need matplotlib, which is not installed: pip install 'domainbed-gs[plots]'"


def have_matplotlib() -> bool:
    """Whether figures can be drawn."""
    try:
        import matplotlib.figure  # noqa: F401 - whatever draws needs it
    except ImportError:
        return False
    return True


def require_matplotlib() -> None:
    """Raise UsageError, which says what to install, where figures can't be drawn."""
    if not have_matplotlib():
        raise UsageError(HOW_TO_GET)


def plain_axes(axis: Axes, grid: Literal["x", "y", "both"] = "y") -> None:
    """The dress of all panels: a pale grid behind, from the marks of the axis named, and no frame."""
    axis.grid(axis=grid, color="#E6E6E6", linewidth=0.8)
    axis.set_axisbelow(True)
    axis.tick_params(colors=INK, length=3)
    axis.spines[["top", "right"]].set_visible(False)


def png(figure: Figure) -> bytes:
    """The figure as the content of a PNG file."""
    from matplotlib.backends.backend_agg import FigureCanvasAgg

    FigureCanvasAgg(figure)
    image = io.BytesIO()
    figure.savefig(image, format="png", dpi=DPI)
    return image.getvalue()


def inline_svg(figure: Figure, label: str) -> str:
    """The figure as an `<svg>` for a page: text stays text; as wide as there is room, up to its size.

    Args:
        figure: what is drawn; the same content gives the same text.
        label: what it shows, for readers who don't see it; no other figure of the page may have it.
    """
    import matplotlib
    from matplotlib.backends.backend_svg import FigureCanvasSVG

    FigureCanvasSVG(figure)
    file = io.BytesIO()
    # Marks and clips are referred to by names, which the salt makes this figure's own.
    with matplotlib.rc_context(
        {"svg.fonttype": "none", "svg.hashsalt": label, "font.sans-serif": ["DejaVu Sans"]}
    ):
        figure.savefig(file, format="svg", metadata=dict.fromkeys(("Creator", "Date", "Format", "Type")))
    root = ElementTree.fromstring(file.getvalue())
    for element in root.iter():
        element.tag = _local(element.tag)
        element.attrib = {_local(name): value for name, value in element.attrib.items()}
        element.text, element.tail = (text and text.strip() for text in (element.text, element.tail))
        if element.tag == "g":
            element.attrib.pop("id", None)  # the same in every figure, and nobody refers to it
    for definitions in root.findall("defs"):
        root.remove(definitions)  # a style, which in a page would be that of everything
    width = root.attrib.pop("width")
    del root.attrib["height"], root.attrib["version"]
    root.attrib |= {"role": "img", "aria-label": label, "style": f"max-width:{width}"}
    return ElementTree.tostring(root, encoding="unicode")


def _local(name: str) -> str:
    """The name of an element or attribute without its namespace, as HTML has it."""
    return name.rpartition("}")[2]


def boxes(
    axis: Axes,
    values: Sequence[np.ndarray],
    positions: Sequence[int],
    **options: Any,  # noqa: ANN401 - matplotlib's
) -> list[PathPatch]:
    """Box plots in the style of all figures; `options` go to `boxplot`. Returns the boxes, to be coloured."""
    line = {"color": INK, "linewidth": 0.9}
    drawn = axis.boxplot(
        values,
        positions=positions,
        patch_artist=True,
        showfliers=False,  # every trial is drawn as a dot anyway
        medianprops={"color": INK, "linewidth": 1.8},
        whiskerprops=line,
        capprops=line,
        **options,
    )
    found: list[PathPatch] = drawn["boxes"]
    return found

"""Text in figures: names are no formulas, and characters that the font lacks are taken from other fonts."""

from __future__ import annotations

import contextlib
import logging
import warnings
from collections.abc import Iterator
from functools import cache
from typing import TYPE_CHECKING

from domainbed.escaping import visible, visible_lines

if TYPE_CHECKING:
    from matplotlib.axis import Axis
    from matplotlib.figure import Figure
    from matplotlib.text import Text

FONT = "DejaVu Sans"
"""The font of all figures. It comes with matplotlib."""

_log = logging.getLogger(__name__)
_reported: set[str] = set()
"""Characters that a warning has named."""


@contextlib.contextmanager
def drawable(figure: Figure, embeds_glyphs: bool) -> Iterator[None]:
    """Prepare all texts of `figure`, so that it can be drawn in this context whatever names it has.

    `$` is no formula, except in labels that matplotlib makes for the ticks of logarithmic axes. Control
    characters become escapes.

    Args:
        figure: the figure, which is changed.
        embeds_glyphs: whether the file has the glyphs (PNG) or the text (SVG), for which its reader has
            fonts. For glyphs that `FONT` lacks, other installed fonts are used; one warning in the log names
            the characters that none has.
    """
    from matplotlib.text import Text

    made = {id(label) for axis in _axes(figure) for label in _tick_labels(axis)}
    texts = [text for text in figure.findobj(Text) if id(text) not in made]
    for text in texts:
        text.set_parse_math(False)
        text.set_text(visible_lines(text.get_text()))
    if embeds_glyphs:
        _choose_fonts(texts)
    with warnings.catch_warnings():
        # matplotlib warns for each glyph, each time it measures a text. `_choose_fonts` has said it once.
        warnings.filterwarnings("ignore", message="Glyph .* missing from", category=UserWarning)
        yield


def _axes(figure: Figure) -> Iterator[Axis]:
    for axes in figure.axes:
        yield from (axes.xaxis, axes.yaxis)


def _tick_labels(axis: Axis) -> list[Text]:
    """The labels that matplotlib makes. Names that were given as labels are escaped here."""
    from matplotlib.ticker import FixedFormatter, FixedLocator, FuncFormatter

    labels = axis.get_ticklabels(which="both")
    formatter, locator = axis.get_major_formatter(), axis.get_major_locator()
    if not isinstance(formatter, FixedFormatter | FuncFormatter) or not isinstance(locator, FixedLocator):
        return labels
    given = axis.get_ticklabels()
    axis.set_ticklabels([visible(label.get_text()) for label in given])
    chosen = {id(label) for label in given}
    return [label for label in labels if id(label) not in chosen]


def _choose_fonts(texts: list[Text]) -> None:
    own = _characters(_path_of(FONT))
    lacking = {each: {c for c in each.get_text() if not c.isspace() and ord(c) not in own} for each in texts}
    wanted = frozenset[str]().union(*lacking.values())
    if not wanted:
        return
    families, missing = _fonts_with(frozenset(wanted))
    for text, characters in lacking.items():
        if characters and families:
            text.set_fontfamily([FONT, *families])
    new = sorted(missing - _reported)
    if new:
        _reported.update(new)
        shown = ", ".join(f"{character} (U+{ord(character):04X})" for character in new[:5])
        more = f" and {len(new) - 5} more" if len(new) > 5 else ""
        _log.warning(
            "warning: no installed font has %s%s, which figures show as boxes; install one that has, such as "
            "Noto Sans CJK (Debian: fonts-noto-cjk)",
            shown,
            more,
        )


@cache
def _fonts_with(wanted: frozenset[str]) -> tuple[list[str], frozenset[str]]:
    """Families of installed fonts that together have most of `wanted`, and the characters that none has."""
    from matplotlib.font_manager import fontManager

    regular = {
        font.name: font.fname
        for font in fontManager.ttflist
        if font.style == "normal" and not font.name.startswith("Last Resort")  # it has boxes for all
    }
    left, families = set(wanted), []
    # Fonts for much text first: those with "CJK", then "Noto", in their names.
    for name in sorted(regular, key=lambda name: ("CJK" not in name, "Noto" not in name, name)):
        if not left:
            break
        found = {character for character in left if ord(character) in _characters(regular[name])}
        if found:
            families.append(name)
            left -= found
    return families, frozenset(left)


@cache
def _characters(path: str) -> frozenset[int]:
    """Code points of the characters that the font in the file `path` has; empty if it cannot be read."""
    from matplotlib.ft2font import FT2Font

    try:
        return frozenset(FT2Font(path).get_charmap())
    except (OSError, RuntimeError):
        return frozenset()


def _path_of(family: str) -> str:
    from matplotlib.font_manager import findfont

    return str(findfont(family))

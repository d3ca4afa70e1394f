"""Texts in figures: names are no formulas, and glyphs that the font lacks are found or said to be missing."""

import logging
from xml.etree import ElementTree

from matplotlib.figure import Figure
from matplotlib.font_manager import fontManager

from domainbed.results import figure_text
from domainbed.results.plots import inline_svg, png

SHOWN = {
    "$x$": "$x$",
    "\\frac{$": "\\frac{$",
    "a\\$b$": "a\\$b$",
    "\x1b[31m": "\\x1b[31m",
    "<script>": "<script>",
    "\udcff \ud800": "\\xff \\ud800",
    "a\nb": "a\\nb",
    "\u202eabc": "\\u202eabc",
    "$a$ $b$ \\frac": "$a$ $b$ \\frac",
}


def test_any_name_is_drawn_as_it_is_everywhere():
    for name, shown in SHOWN.items():
        figure = Figure()
        axis = figure.subplots()
        axis.plot([0, 1], [0, 1], label=name)
        axis.set_xticks([0, 1], [name, "b"], rotation=35)
        axis.set_yticks([0, 1], [name, "b"])
        axis.set_title(name)
        axis.set_xlabel(name)
        axis.set_ylabel(name)
        axis.legend()
        axis.annotate(name, (1, 1))
        figure.suptitle(name)
        figure.supxlabel(name)
        svg = ElementTree.fromstring(inline_svg(figure, f"label of {name}"))
        assert svg.attrib["aria-label"] == f"label of {shown}"
        texts = [element.text for element in svg.iter("text")]
        # Line ends break titles and the like into lines; labels of ticks stay in one.
        assert texts.count(shown) == (2 if "\n" in name else 9)
    assert png(figure).startswith(b"\x89PNG")


def test_missing_glyphs_are_said_in_one_line(caplog, monkeypatch):
    monkeypatch.setattr(figure_text, "_reported", set())
    figure = Figure()
    axis = figure.subplots()
    # Characters of scripts that no font has: unassigned ones.
    axis.set_xticks(range(3), ["\U0002fe00", "a\U0002fe01", "\U0002fe02\U0002fe00"])
    with caplog.at_level(logging.WARNING):
        for _ in range(2):
            assert png(figure).startswith(b"\x89PNG")
    assert len(caplog.messages) == 1
    assert "no installed font has" in caplog.text
    assert "(U+2FE00), " in caplog.text


def test_glyphs_are_taken_from_any_font_that_has_them(caplog):
    """Here, of a font that matplotlib brings."""
    own = figure_text._characters(figure_text._path_of(figure_text.FONT))
    others = [font.fname for font in fontManager.ttflist if font.name == "STIXGeneral"]
    character = chr(min(figure_text._characters(others[0]) - own))
    figure = Figure()
    label = figure.text(0.5, 0.5, f"a {character}")
    png(figure)
    assert len(label.get_fontfamily()) > 1
    assert not caplog.messages


def test_numbers_of_logarithmic_axes_stay_formulas():
    figure = Figure()
    axis = figure.subplots()
    axis.plot([1, 2], [1, 1e4])
    axis.set_yscale("log")
    axis.set_title("$10^4$")
    svg = inline_svg(figure, "label")
    assert "$10^4$" in svg
    assert "mathdefault" not in svg

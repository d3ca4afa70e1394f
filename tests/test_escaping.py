"""Each kind of output escapes what it would obey, and parsers read equal names back."""

import csv
import html.parser
import io
import re
import sys
import tomllib
import unicodedata
from contextlib import redirect_stderr, redirect_stdout

import pandas as pd
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from markdown_it import MarkdownIt

from domainbed.escaping import (
    EscapedStream,
    clear_terminal,
    csv_line,
    encodable,
    escaped_output,
    html_escape,
    is_formula,
    latex_escape,
    latex_label,
    markdown_escape,
    shortened,
    toml_key,
    toml_value,
    visible,
    visible_lines,
)

HOSTILE = (
    "$x$ \\frac{ $", "100 % & a_b #1 ~^{}", "\x1b[31mred\x07\x9b0m", "a\nb\r\nc\td", "<script>f(1)</script>",
    "=cmd()|'/C calc'!A0", "猫 한국어 😀", "\u202eabc\u200b\ufeff", "\ud800\udcff", "# 1. - + === #",
    "| a | `b` *c* _d_ [e](f) &amp;", '"quoted", \'text\'', "[1]*", "--flag ---", "\x00\x7f\x85\u2028",
)  # fmt: skip
TEXTS = st.one_of(
    st.sampled_from(HOSTILE),
    st.text(max_size=8),
    st.text("$%_\\{}<>&|`*#-=+~^[]():!\"' \n\r\t\x1b\x00\u202e\ud800\udcffab1猫", max_size=12),
)
PROPERTIES = settings(max_examples=60, deadline=None)


def has_controls(text, allowed=""):
    """Whether `text` has a control character, one that changes the direction of writing, or a surrogate."""
    kinds = {unicodedata.category(each) for each in set(text) - set(allowed)}
    bidirectional = {unicodedata.bidirectional(each) for each in text}
    return bool(kinds & {"Cc", "Cs", "Zl", "Zp"} or bidirectional & {"LRE", "RLE", "LRO", "RLO", "PDF"})


@PROPERTIES
@given(TEXTS)
def test_visible_text_is_one_line_without_control_characters(text):
    shown = visible(text)
    assert not has_controls(shown)
    assert visible(shown) == shown
    assert len(shown.splitlines()) <= 1
    assert visible_lines(text).replace("\n", "\\n").replace("\t", "\\t").replace("\r", "\\r") == shown
    shown.encode("utf-8")


def test_what_is_seen_stays():
    assert visible("é猫 한국어 नमस्ते عربى 👩‍👩‍👧 $x$ <b>") == "é猫 한국어 नमस्ते عربى 👩‍👩‍👧 $x$ <b>"
    assert visible("\x1b[1m a\nb\udcff\ud800\u202e") == "\\x1b[1m a\\nb\\xff\\ud800\\u202e"
    assert encodable("\x1b\n\udcff") == "\x1b\n\\xff"
    assert shortened("x" * 1000) == "x" * 40 + "..." + "x" * 20
    assert shortened("x" * 80) == "x" * 80


@PROPERTIES
@given(st.lists(st.lists(TEXTS, min_size=2, max_size=2), min_size=1, max_size=4))
def test_csv_is_read_back_to_equal_names(rows):
    text = "".join(map(csv_line, [["first", "second"], *rows]))
    expected = [[encodable(cell) for cell in row] for row in rows]
    assert list(csv.reader(io.StringIO(text, newline="")))[1:] == expected
    if "\x00" not in text:  # at which pandas ends a cell
        file = io.BytesIO(text.encode())
        frame = pd.read_csv(file, dtype=str, keep_default_na=False, skip_blank_lines=False)
        assert frame.to_numpy().tolist() == expected


def test_formulas_are_known_from_numbers():
    assert all(map(is_formula, ("=1+1", "@f()", "\t=1", "-abc", "-2+3+cmd|' /C calc'!A0")))
    plain = ("", "-", "ERM", "-0.5", "+1.2 +/- 0.3", "-10dB", "+.5 *", "1=1", "[-0.3, +0.1]")
    assert not any(map(is_formula, plain))


@PROPERTIES
@given(TEXTS)
def test_html_shows_the_text_and_has_no_elements_of_it(text):
    found = []
    parser = html.parser.HTMLParser()
    parser.handle_starttag = lambda tag, attributes: found.append((tag, dict(attributes)))
    parser.handle_data = lambda data: found.append(data)
    escaped = html_escape(text)
    parser.feed(f'<p title="{escaped}">{escaped}</p>')
    parser.close()
    shown = visible(text).replace(" +/- ", " ± ")
    assert found[0] == ("p", {"title": shown})
    assert "".join(found[1:]) == shown
    assert html_escape("a\n<b>\x1b", keep_lines=True) == "a\n&lt;b&gt;\\x1b"


@PROPERTIES
@given(TEXTS)
def test_markdown_shows_the_text(text):
    """As a cell of a table, a list item, a heading, and in emphasis."""
    parser = MarkdownIt("commonmark").enable(["table", "strikethrough"])
    shown = " ".join(visible(text).split())
    cell = f"| x | {markdown_escape(text)} |\n| --- | --- |\n"
    item = f"- {markdown_escape(text, starts_line=True)}"
    heading = f"### a {markdown_escape(text)}"
    footer = f"*x {markdown_escape(text, in_emphasis=True)}.*"
    assert parser.render(footer).startswith("<p><em>x ")
    assert parser.render(footer).endswith(".</em></p>\n")
    for source, tag, begin in ((cell, "th", "x"), (item, "li", ""), (heading, "h3", "a")):
        page = parser.render(source)
        assert re.findall(r"<(?!/?(?:table|thead|tbody|tr|th|td|ul|li|h3|p)\b)[^>]*>", page) == [], page
        inner = "".join(re.findall(rf"<{tag}>(.*?)</{tag}>", page, re.DOTALL))
        plain = re.sub("<[^>]*>", "", inner).removeprefix(begin)
        assert " ".join(html.unescape(plain).split()) == shown


def test_markdown_leaves_ordinary_text_alone():
    ordinary = "IB_ERM: p < 0.05, 77.1 +/- 0.2* [-0.5, +1.2] (100 %), Colored-MNIST & PACS."
    assert markdown_escape(ordinary, starts_line=True) == ordinary


@PROPERTIES
@given(TEXTS)
def test_latex_has_no_special_character_unescaped(text):
    escaped = latex_escape(text)
    assert not has_controls(escaped)
    plain = re.sub(r"\\[&%$#_{}]|\\[a-zA-Z]+(\{\})?|\$[<>-]\$|\{[`]?\}|\\pm|\$ \$", "", escaped)
    assert not set(plain.replace("$\\pm$", "").replace("$$", "")) & set("&%$#_{}~^\\<>|"), escaped
    assert not latex_label(text).startswith(("[", "*"))
    assert "--" not in escaped


def test_latex_escape():
    assert latex_escape("a_b & 5% #1 {x} $y$") == r"a\_b \& 5\% \#1 \{x\} \$y\$"
    assert latex_escape("~^\\|") == r"\textasciitilde{}\textasciicircum{}\textbackslash{}\textbar{}"
    assert latex_escape("77.1 +/- 0.2 < 80") == r"77.1 $\pm$ 0.2 $<$ 80"
    assert latex_escape("--splits") == "-{}-splits"
    assert latex_escape("é猫犬") == r"é\ifdefined\Uchar 猫犬\else [U+732B U+72AC]\fi{}"


@PROPERTIES
@given(TEXTS, st.lists(TEXTS, max_size=2))
def test_toml_is_read_back_to_equal_names(name, values):
    text = f"{toml_key('_' + name)} = {toml_value([*values, 1, 0.5, True])}\n[{toml_key(name)}]\n"
    names = [encodable(each) for each in values]
    assert tomllib.loads(text) == {encodable(f"_{name}"): [*names, 1, 0.5, True], encodable(name): {}}


class Terminal(io.StringIO):
    encoding = "ascii"

    def isatty(self):
        return True


def test_a_terminal_gets_no_escape_sequence_and_a_pipe_gets_csv_as_it_is():
    terminal, pipe, log = Terminal(), io.StringIO(), io.StringIO()
    for out in (terminal, pipe):
        with redirect_stdout(out), redirect_stderr(log), escaped_output():
            print("\x1b[31mé\udcff")
            print("\x1b]0;title\x07", file=sys.stderr)
    assert terminal.getvalue() == "\\x1b[31m\\xe9\\xff\n"
    assert pipe.getvalue() == "\x1b[31mé\\xff\n"
    assert log.getvalue() == 2 * "\\x1b]0;title\\x07\n"


@pytest.mark.parametrize("escaped", [True, False])
def test_a_terminal_is_cleared_by_our_own_sequence(escaped):
    terminal = Terminal()
    with redirect_stdout(EscapedStream(terminal) if escaped else terminal):
        clear_terminal()
    assert terminal.getvalue() == "\x1b[2J\x1b[H"

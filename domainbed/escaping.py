"""Text as data: what each kind of output needs so that any name is shown and none is obeyed.

Names of environments, classes, algorithms and files, and messages of errors, may contain anything: `$`, `%`,
`<script>`, escape sequences of terminals, line ends, characters that reverse the direction of writing, bytes
that are not UTF-8. Whoever writes an output calls the function of its kind, last and once:

| output | function |
|---|---|
| text tables, one-line messages | `visible` |
| a terminal, a log | `escaped_output`, or `visible_lines` |
| CSV | `csv_line` |
| LaTeX | `latex_escape`, `latex_label` |
| Markdown | `markdown_escape` |
| HTML, SVG | `html_escape` |
| TOML | `toml_value`, `toml_key` |

Figures are prepared by `domainbed.results.figure_text`. JSON needs nothing: `json.dumps` writes ASCII.
"""

from __future__ import annotations

import contextlib
import csv
import html
import io
import json
import re
import sys
import unicodedata
from collections.abc import Iterable, Iterator, Mapping
from typing import Any, TextIO, cast

_INVISIBLE = (
    "\x00-\x1f\x7f-\x9f"  # control characters
    "\u2028\u2029"  # ends of lines and paragraphs
    "\u061c\u200e\u200f\u202a-\u202e\u2066-\u2069"  # direction of writing
    "\u200b\u2060-\u2064\ufeff"  # no width
    "\ufffe\uffff\ud800-\udfff"  # no characters
)
_ESCAPED = re.compile(f"[{_INVISIBLE}]")
_ESCAPED_IN_LINES = re.compile(f"(?![\t\n\r])[{_INVISIBLE}]")
_SURROGATES = re.compile("[\ud800-\udfff]")
_SHORT = {"\t": "\\t", "\n": "\\n", "\r": "\\r"}

_LATEX = str.maketrans(
    {character: "\\" + character for character in "&%$#_{}"}
    | {
        "~": "\\textasciitilde{}",
        "^": "\\textasciicircum{}",
        "\\": "\\textbackslash{}",
        "|": "\\textbar{}",
        "<": "$<$",
        ">": "$>$",
        "`": "{`}",
        "†": "\\textdagger{}",
        "−": "$-$",
    }
)
_NOT_IN_TEX = re.compile(
    "[^\x00-\x7f\u00a1-\u00aa\u00ac\u00ae-\u00ba\u00bc-\u00cf\u00d1-\u00dd\u00df-\u00ef\u00f1-\u00fd\u00ff"
    "\u0106-\u010f\u0141-\u0148\u0150-\u0161]+"
)
"""Characters beyond those that every LaTeX sets without further packages."""

_MARKDOWN = re.compile(
    r"[\\`*|~$]"
    r"|\[(?![+-]?\d[^\[\]]*\](?![(\[:]))"  # an interval such as [-0.5, +1.2] is no link
    r"|(?<![^\W_])_|_(?![^\W_])"  # within a word an underscore is only that
    r"|<(?=[A-Za-z/!?])|&(?=#?\w+;)"
    r"|(?<!\S)#"  # at its end, a heading loses these
)
_ENTITIES = {"<": "&lt;", "&": "&amp;"}
"""Not every Markdown takes a backslash before these."""

_BLOCK_START = re.compile(r"\A(\d+(?=[.)])|(?=[#+\-=>*]))")


def visible(text: str) -> str:
    r"""`text` in one line, with control and invisible characters as escapes: `\x1b`, `\n`, `\u202e`.

    A byte of a file name that is not UTF-8 (a surrogate of `os.fsdecode`) becomes `\xff`. Other characters,
    such as Chinese ones, stay.
    """
    return _ESCAPED.sub(_escape, text)


def visible_lines(text: str) -> str:
    """Like `visible`, but the lines of `text`, its tabs and its carriage returns stay."""
    return _ESCAPED_IN_LINES.sub(_escape, text)


def encodable(text: str) -> str:
    r"""`text` with surrogates, which no encoding has, as `\xff` or `\ud800`. All else stays."""
    return _SURROGATES.sub(_escape, text)


def shortened(text: str, most: int = 80) -> str:
    """`text`, with its middle replaced by "..." if it has more than `most` characters."""
    if len(text) <= most:
        return text
    return f"{text[: most // 2]}...{text[-(most // 4) :]}"


def _escape(found: re.Match[str]) -> str:
    character = found[0]
    code = ord(character)
    if 0xDC80 <= code <= 0xDCFF:  # a byte that is not UTF-8
        return f"\\x{code - 0xDC00:02x}"
    return _SHORT.get(character) or (f"\\x{code:02x}" if code < 0x100 else f"\\u{code:04x}")


def csv_line(values: Iterable[object]) -> str:
    """A row of CSV with its newline. Parsers read back equal texts: nothing is escaped but surrogates.

    So a cell may begin with "=", which spreadsheets calculate (see `is_formula`).
    """
    row = io.StringIO()
    # Before Python 3.13, a carriage return is quoted only if it is part of the line terminator.
    csv.writer(row, lineterminator="\r\n").writerow(
        encodable(value) if isinstance(value, str) else value for value in values
    )
    return row.getvalue().removesuffix("\r\n") + "\n"


def is_formula(cell: str) -> bool:
    """Whether a spreadsheet that opens a CSV file calculates `cell`, such as "=1+1" or "-a|b!c"."""
    if cell.startswith(("=", "@", "\t", "\r")):
        return True
    return cell.startswith(("+", "-")) and len(cell) > 1 and not re.fullmatch(r".[\d.][^(|!]*", cell)


def latex_escape(text: str) -> str:
    """`text` for LaTeX, with "+/-" as a plus-minus sign.

    Characters that pdfLaTeX lacks, such as Chinese ones, become their numbers there ("[U+732B]"); XeLaTeX and
    LuaLaTeX set them, given a font that has them.
    """
    text = unicodedata.normalize("NFC", visible(text))
    escaped = " $\\pm$ ".join(part.translate(_LATEX) for part in text.split(" +/- "))
    escaped = re.sub("-(?=-)", "-{}", escaped)  # two hyphens are no dash
    return _NOT_IN_TEX.sub(_tex_numbers, escaped)


def latex_label(text: str) -> str:
    """`latex_escape(text)` for the first cell of a row.

    There, "[" and "*" would be arguments of the line break that ends the row before.
    """
    escaped = latex_escape(text)
    return "{}" + escaped if escaped.startswith(("[", "*")) else escaped


def _tex_numbers(found: re.Match[str]) -> str:
    numbers = " ".join(f"U+{ord(character):04X}" for character in found[0])
    return f"\\ifdefined\\Uchar {found[0]}\\else [{numbers}]\\fi{{}}"


def markdown_escape(text: str, starts_line: bool = False, in_emphasis: bool = False) -> str:
    """`text` for Markdown, in which it is neither HTML, emphasis, link nor formula.

    Args:
        text: the text.
        starts_line: whether it stands at the start of a line or list item, where "#" and "1." have a meaning.
        in_emphasis: whether stars surround it.
    """

    def escape(found: re.Match[str]) -> str:
        # Where none begins emphasis, stars such as that of "0.03*" are only stars.
        if found[0] == "*" and not in_emphasis and not found.string[found.end() :][:1].strip():
            return "*"
        return _ENTITIES.get(found[0], f"\\{found[0]}")

    escaped = _MARKDOWN.sub(escape, visible(text))
    return _BLOCK_START.sub(r"\1\\", escaped.lstrip()) if starts_line else escaped


def html_escape(text: str, keep_lines: bool = False) -> str:
    """`text` for HTML and SVG, in elements and attributes, with "+/-" as a plus-minus sign.

    Args:
        text: the text.
        keep_lines: whether it is a block of lines, such as commands, that stay as they are.
    """
    return html.escape(visible_lines(text) if keep_lines else visible(text).replace(" +/- ", " ± "))


def toml_value(value: object) -> str:
    """A text, number, boolean or list of these as a value of TOML. Surrogates become escapes in the text."""
    if isinstance(value, str):
        # ensure_ascii would write characters beyond U+FFFF as two escapes, which TOML does not have.
        quoted = json.dumps(encodable(value), ensure_ascii=False)
        return _ESCAPED.sub(lambda found: f"\\u{ord(found[0]):04x}", quoted)
    if isinstance(value, list | tuple):
        return f"[{', '.join(map(toml_value, value))}]"
    if isinstance(value, float):
        return repr(value)  # inf and nan as TOML has them
    if isinstance(value, Mapping):
        return f"{{{', '.join(f'{toml_key(name)} = {toml_value(entry)}' for name, entry in value.items())}}}"
    return json.dumps(value)


def toml_key(name: str) -> str:
    """`name` as a key of TOML, in quotes if necessary."""
    return name if re.fullmatch(r"[A-Za-z0-9_-]+", name) else toml_value(name)


class EscapedStream:
    """A text stream that writes to another one what a terminal or a log can show safely.

    Characters that the encoding of the other stream lacks are written as escapes, and so are control
    characters unless `controls`. All other attributes are those of the other stream.

    Args:
        stream: the stream to write to.
        controls: whether control characters pass, as in a CSV file that a pipe receives.
    """

    def __init__(self, stream: TextIO, controls: bool = False) -> None:
        self._stream = stream
        self._controls = controls

    def write(self, message: str) -> int:
        """Write `message`; returns its length."""
        text = encodable(message) if self._controls else visible_lines(message)
        encoding = getattr(self._stream, "encoding", None) or "utf-8"
        self._stream.write(text.encode(encoding, "backslashreplace").decode(encoding))
        return len(message)

    def write_control(self, sequence: str) -> None:
        """Write a control sequence of our own."""
        self._stream.write(sequence)

    def writelines(self, lines: Iterable[str]) -> None:
        """Write each of `lines`."""
        for line in lines:
            self.write(line)

    def __getattr__(self, name: str) -> Any:  # noqa: ANN401 - any attribute of a stream
        return getattr(self._stream, name)


@contextlib.contextmanager
def escaped_output() -> Iterator[None]:
    """Let `sys.stdout` and `sys.stderr` show control characters as escapes.

    If stdout is no terminal, control characters pass there: a pipe may want a CSV file as it is.
    """
    out = EscapedStream(sys.stdout, controls=not sys.stdout.isatty())
    err = EscapedStream(sys.stderr)
    with contextlib.redirect_stdout(cast(TextIO, out)), contextlib.redirect_stderr(cast(TextIO, err)):
        yield


def clear_terminal() -> None:
    """Clear the terminal that is the current `sys.stdout`."""
    write = sys.stdout.write_control if isinstance(sys.stdout, EscapedStream) else sys.stdout.write
    write("\033[2J\033[H")

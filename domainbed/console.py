"""Terminal output: rows of fixed width, numbers of bytes, output that a file has too, and a break point."""

from __future__ import annotations

import sys
import textwrap
from collections.abc import Sequence
from pathlib import Path
from pdb import Pdb
from types import TracebackType
from typing import Self, TextIO, cast

import numpy as np

from domainbed.escaping import visible, visible_lines

_GAP = "..."


class Tee:
    """A text stream that writes to another stream and copies everything to a file.

        with Tee("out.txt") as out, contextlib.redirect_stdout(out):
            ...

    Closing it closes the copy, but not the stream. Later writes go to the stream only.

    Args:
        fname: path of the copy, or an open text file.
        mode: mode in which the copy is opened, "a" or "w".
        stream: the stream to write to; by default the current `sys.stdout`.

    Raises: OSError if the copy cannot be opened or written.
    """

    def __init__(self, fname: str | Path | TextIO, mode: str = "a", stream: TextIO | None = None) -> None:
        self.stream = stream if stream is not None else sys.stdout
        if isinstance(fname, str | Path):
            self.file = cast(TextIO, Path(fname).open(mode, encoding="utf-8"))  # noqa: SIM115 - close() does
        else:
            self.file = fname

    def write(self, message: str) -> int:
        """Write `message` to stream and copy, and flush both; returns its length.

        Control characters and bytes of file names that are not UTF-8 are written as escapes.
        """
        length = len(message)
        message = visible_lines(message)
        self.stream.write(message)
        self.stream.flush()
        if not self.file.closed:
            self.file.write(message)
            self.file.flush()
        return length

    def flush(self) -> None:
        """Flush stream and copy."""
        self.stream.flush()
        if not self.file.closed:
            self.file.flush()

    def isatty(self) -> bool:
        """Whether the stream is a terminal."""
        return self.stream.isatty()

    def fileno(self) -> int:
        """File descriptor of the stream; raises OSError if it has none."""
        return self.stream.fileno()

    def writable(self) -> bool:
        """Always true."""
        return True

    @property
    def encoding(self) -> str:
        """Encoding of the stream."""
        return self.stream.encoding or "utf-8"

    @property
    def errors(self) -> str | None:
        """Error handler of the stream for characters that its encoding lacks."""
        return self.stream.errors

    @property
    def closed(self) -> bool:
        """Whether the copy is closed."""
        return self.file.closed

    def close(self) -> None:
        """Close the copy, but not the stream."""
        self.file.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()


def format_row(cells: Sequence[object], widths: Sequence[int], latex: bool = False) -> str:
    """A row of text without its newline, in which every cell is padded or cut to its width.

    Floats have ten decimals. Two spaces separate cells and one ends the row; in LaTeX, ` & ` separates cells
    and ` \\\\` ends the row.
    """
    fixed = [_text(cell).ljust(width)[:width] for cell, width in zip(cells, widths, strict=True)]
    return " & ".join(fixed) + " \\\\" if latex else "  ".join(fixed) + " "


def print_row(row: Sequence[object], colwidth: int = 10, latex: bool = False) -> None:
    """Print a row as `format_row` does, with every cell `colwidth` characters wide."""
    print(format_row(row, [colwidth] * len(row), latex))  # noqa: T201 - this function prints


def print_separator() -> None:
    """Print 80 equals signs."""
    print("=" * 80)  # noqa: T201 - this function prints


def shortened_list(items: Sequence[str], most: int = 10) -> str:
    """The first `most` items, separated by commas, and the number of further items."""
    more = f" and {len(items) - most} more" if len(items) > most else ""
    return ", ".join(items[:most]) + more


def fitted(names: Sequence[str], width: int) -> list[str]:
    """`names` with the middle of those longer than `width` left out; all differ that differed, where it can.

    Ends of paths tell more than their beginnings, so the end is the longer part that is kept.
    """
    kept = (width - len(_GAP)) // 3
    for head in (kept, 0, 2 * kept):
        tail = width - len(_GAP) - head
        cut = [name if len(name) <= width else f"{name[:head]}{_GAP}{name[-tail:]}" for name in names]
        if len(set(cut)) == len(set(names)):
            return cut
    return cut


def text_table(rows: Sequence[Sequence[str]], width: int = 80, indent: int = 0) -> list[str]:
    """Lines of a table without rules, at most `width` characters wide where its cells allow.

    Columns are as wide as their cells, two spaces apart; the last one is wrapped.
    """
    *widths, _ = [max(map(len, column)) for column in zip(*rows, strict=True)]
    start = indent + sum(widths) + 2 * len(widths)
    lines = []
    for row in rows:
        cells = [visible(cell) for cell in row]
        first = " " * indent + "".join(
            cell.ljust(length) + "  " for cell, length in zip(cells, widths, strict=False)
        )
        wrapped = textwrap.wrap(cells[-1], max(width - start, 24), break_on_hyphens=False) or [""]
        lines += [(first + wrapped[0]).rstrip(), *(" " * start + rest for rest in wrapped[1:])]
    return lines


def format_bytes(size: float) -> str:
    """A number of bytes as text, such as "1.2 GB"."""
    for unit in ("B", "kB", "MB", "GB"):
        if size < 1000:
            return f"{size:.3g} {unit}"
        size /= 1000
    return f"{size:.3g} TB"


def format_seconds(seconds: float) -> str:
    """A time as text, such as "12 s", "3 min 05 s", "2 h 10 min" or "19 days 13 h"."""
    minutes, rest = divmod(round(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    if hours >= 48:
        return f"{hours // 24} days {hours % 24} h"
    if hours:
        return f"{hours} h {minutes:02d} min"
    return f"{minutes} min {rest:02d} s" if minutes else f"{rest} s"


def _text(cell: object) -> str:
    return f"{cell:.10f}" if isinstance(cell, float | np.floating) else visible(str(cell))


def pdb() -> None:
    """Restore stdout and start Python's debugger in the caller."""
    sys.stdout = sys.__stdout__
    Pdb().set_trace(sys._getframe(1))


def program_name(module: str, command: str | None = None) -> str:
    """What help and messages call a script: "domainbed COMMAND", or else "python -m <module>".

    It is the former in processes that were started so.

    Args:
        module: the script's module.
        command: its name as a command; None: that of this process.
    """
    started = sys.argv[0]
    if not started.startswith("domainbed "):
        return f"python -m {module}"
    return started if command is None else f"domainbed {command}"

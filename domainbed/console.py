"""What goes to the terminal: rows of fixed width, copies of a stream into a file, a break point."""

from __future__ import annotations

import sys
from collections.abc import Sequence
from pathlib import Path
from pdb import Pdb
from types import TracebackType
from typing import Self, TextIO, cast

import numpy as np


class Tee:
    """Stands in for stdout or stderr and copies what is written to a file.

        with Tee("out.txt") as out, contextlib.redirect_stdout(out):
            ...

    Text goes on to `stream`, so that a Tee over stderr leaves it on stderr. Closing it closes the file and
    not the stream; whoever still writes then reaches the stream alone.

    Args:
        fname: path of the copy, or an open text file.
        mode: how the copy is opened, "a" or "w".
        stream: where the text goes besides; by default what `sys.stdout` is now.

    Raises: OSError if the copy cannot be opened or written.
    """

    def __init__(self, fname: str | Path | TextIO, mode: str = "a", stream: TextIO | None = None) -> None:
        self.stream = stream if stream is not None else sys.stdout
        if isinstance(fname, str | Path):
            self.file = cast(TextIO, Path(fname).open(mode, encoding="utf-8"))  # noqa: SIM115 - close() does
        else:
            self.file = fname

    def write(self, message: str) -> int:
        """Write and flush `message` on both sides; its length."""
        self.stream.write(message)
        self.stream.flush()
        if not self.file.closed:
            self.file.write(message)
            self.file.flush()
        return len(message)

    def flush(self) -> None:
        """Flush both sides."""
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
        """Always."""
        return True

    @property
    def encoding(self) -> str:
        """Encoding of the stream."""
        return self.stream.encoding or "utf-8"

    @property
    def errors(self) -> str | None:
        """What the stream does with a character that its encoding lacks."""
        return self.stream.errors

    @property
    def closed(self) -> bool:
        """Whether the copy is closed."""
        return self.file.closed

    def close(self) -> None:
        """Close the copy; the stream stays open."""
        self.file.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()


def format_row(cells: Sequence[object], widths: Sequence[int], latex: bool = False) -> str:
    """One line, without its newline: each cell padded or cut to its width.

    Floats get ten decimals. Cells are parted by two spaces and followed by one, or in LaTeX by ` & `
    and followed by ` \\\\`.
    """
    fixed = [_text(cell).ljust(width)[:width] for cell, width in zip(cells, widths, strict=True)]
    return " & ".join(fixed) + " \\\\" if latex else "  ".join(fixed) + " "


def print_row(row: Sequence[object], colwidth: int = 10, latex: bool = False) -> None:
    """Print `format_row` with every cell `colwidth` wide."""
    print(format_row(row, [colwidth] * len(row), latex))  # noqa: T201 - its job


def print_separator() -> None:
    """Print 80 equals signs."""
    print("=" * 80)  # noqa: T201 - its job


def shortened_list(items: Sequence[str], most: int = 10) -> str:
    """`items` on one line, separated by commas: the first `most`, and how many more there are."""
    more = f" and {len(items) - most} more" if len(items) > most else ""
    return ", ".join(items[:most]) + more


def _text(cell: object) -> str:
    return f"{cell:.10f}" if isinstance(cell, float | np.floating) else str(cell)


def pdb() -> None:
    """Restore stdout and stop the caller in Python's debugger."""
    sys.stdout = sys.__stdout__
    Pdb().set_trace(sys._getframe(1))

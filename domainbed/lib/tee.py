"""Tee: a text stream that also goes to a file."""

from __future__ import annotations

import sys
from pathlib import Path
from types import TracebackType
from typing import Self, TextIO, cast


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

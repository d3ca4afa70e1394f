"""Rows of fixed width, as upstream prints them (CLI spec 1.2)."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np


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


def _text(cell: object) -> str:
    return f"{cell:.10f}" if isinstance(cell, float | np.floating) else str(cell)

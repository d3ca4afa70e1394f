"""What a table of similarities says: means over the steps, and curves of them."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from domainbed_gs.similarity.measure import KINDS, mean_and_error
from domainbed_gs.similarity.table import Row

POINTS = 40
"""Of a curve at most: each is over a class or two otherwise, and classes differ more than steps do."""


@dataclass(frozen=True)
class Curve:
    """A column of a table, averaged over windows of successive measurements.

    Attributes:
        steps: mean step of each window (n,).
        means: of the window's measurements (n,).
        errors: their standard errors (n,) over the measurements (ddof=1); nan for windows of one.
    """

    steps: NDArray[np.float64]
    means: NDArray[np.float64]
    errors: NDArray[np.float64]


def curve(rows: Sequence[Row], column: str, points: int = POINTS) -> Curve:
    """A column in at most `points` windows of equal numbers of measurements, but for one; nan left out."""
    steps, values = column_of(rows, "step"), column_of(rows, column)
    windows = np.array_split(np.arange(len(rows)), min(points, len(rows)))
    finite = [window[np.isfinite(values[window])] for window in windows]
    pairs = [mean_and_error(values[window]) for window in finite]
    return Curve(
        np.array([steps[window].mean() for window in windows]),
        np.array([mean for mean, _ in pairs]),
        np.array([error for _, error in pairs]),
    )


def column_of(rows: Sequence[Row], column: str) -> NDArray[np.float64]:
    """The numbers of a column (n,)."""
    return np.array([float(row[column]) for row in rows])


def describe(rows: Sequence[Row]) -> list[str]:
    """The study in a few lines: means over all measurements, with standard errors over them."""
    within, between = (column_of(rows, f"{kind}_cosine") for kind in KINDS)
    larger = np.mean(within > between)
    gap, error = mean_and_error((within - between)[np.isfinite(within - between)])
    lines = [
        f"{len(rows)} measurements; the mean cosine is larger within environments than between them in "
        f"{100 * larger:.0f} % of them, by {gap:.4f} +/- {error:.4f}"
    ]
    for kind in KINDS:
        parts = [f"{name} {_text(rows, f'{kind}_{name}')}" for name in ("cosine", "sign agreement")]
        lines.append(f"{kind:>8} environments: {', '.join(parts)}")
    lines.append(f"consensus of the environments' signs: {_text(rows, 'consensus')}")
    skipped = int(column_of(rows, "skipped").sum())
    return lines + ([f"{skipped} samples had a gradient of 0 and were left out."] if skipped else [])


def _text(rows: Sequence[Row], column: str) -> str:
    values = column_of(rows, column.replace("sign ", ""))
    mean, error = mean_and_error(values[np.isfinite(values)])
    return f"{mean:.4f} +/- {error:.4f}"

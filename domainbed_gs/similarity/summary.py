"""Means of a table of similarities, over all measurements and over windows of them."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from domainbed.gradients.comparison import agreement_by_chance as by_chance
from domainbed_gs.similarity.measure import KINDS, mean_and_error
from domainbed_gs.studies.step_table import Row

WINDOWS = 40
"""Maximum number of windows. More would average over too few classes, which differ more than steps do."""


@dataclass(frozen=True)
class WindowMeans:
    """A column of a table, averaged over n windows of successive measurements.

    Attributes:
        steps: mean step of each window (n,).
        means: mean of each window (n,); NaN for a window without finite values.
        errors: standard error of each mean (n,) over measurements (ddof=1); NaN for a single measurement.
    """

    steps: NDArray[np.float64]
    means: NDArray[np.float64]
    errors: NDArray[np.float64]


def window_means(rows: Sequence[Row], column: str, windows: int = WINDOWS) -> WindowMeans:
    """Average a column, ignoring NaN, over at most `windows` windows whose lengths differ by at most one."""
    steps, values = column_of(rows, "step"), column_of(rows, column)
    positions = np.array_split(np.arange(len(rows)), min(windows, len(rows)))
    finite = [window[np.isfinite(values[window])] for window in positions]
    pairs = [mean_and_error(values[window]) for window in finite]
    return WindowMeans(
        steps=np.array([steps[window].mean() for window in positions]),
        means=np.array([mean for mean, _ in pairs]),
        errors=np.array([error for _, error in pairs]),
    )


def column_of(rows: Sequence[Row], column: str) -> NDArray[np.float64]:
    """Numbers (n,) of a column."""
    return np.array([float(row[column]) for row in rows])


def agreement_by_chance(rows: Sequence[Row], kind: str, environments: int) -> float:
    """Mean over measurements of the share of equal signs that independent signs would have.

    Args:
        rows: at least one measurement.
        kind: one of `KINDS`, for two samples; or "consensus", for the mean gradients of all environments.
        environments: number K of source environments.
    """
    signs, column = (environments, "zeros") if kind == "consensus" else (2, f"{kind}_zeros")
    return by_chance(signs, float(np.nanmean(column_of(rows, column))))


def describe(rows: Sequence[Row], environments: int) -> list[str]:
    """Summary in a few lines: means over all measurements, with their standard errors.

    Args:
        rows: at least one measurement.
        environments: number K of source environments.
    """
    within, between = (column_of(rows, f"{kind}_cosine") for kind in KINDS)
    larger = np.mean(within > between)
    gap, error = mean_and_error((within - between)[np.isfinite(within - between)])
    lines = [
        f"{len(rows)} measurements. The mean cosine is larger within environments than between environments "
        f"in {100 * larger:.0f} % of them; mean difference {gap:.4f} +/- {error:.4f}."
    ]
    for kind in KINDS:
        lines.append(
            f"{kind:>8} environments: cosine {_text(rows, f'{kind}_cosine')}, "
            f"sign agreement {_text(rows, f'{kind}_agreement')} "
            f"(by chance {agreement_by_chance(rows, kind, environments):.4f})"
        )
    lines.append(
        f"consensus of the environments' signs: {_text(rows, 'consensus')} "
        f"(by chance {agreement_by_chance(rows, 'consensus', environments):.4f}, "
        f"since {100 * np.mean(column_of(rows, 'zeros')):.1f} % of the components are 0 in an environment)"
    )
    skipped = int(column_of(rows, "skipped").sum())
    return lines + ([f"Samples with a zero gradient, left out: {skipped}."] if skipped else [])


def _text(rows: Sequence[Row], column: str) -> str:
    values = column_of(rows, column)
    mean, error = mean_and_error(values[np.isfinite(values)])
    return f"{mean:.4f} +/- {error:.4f}"

"""Tables of methods by the distances between environments."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from domainbed.algorithms import REGISTRY
from domainbed.results.printing import print_paragraphs
from domainbed_gs.alignment.comparison import LEAST_SHARE, MOST_ERROR, NORMS, compare_methods
from domainbed_gs.alignment.settings import ALIGNMENT, ALL, CLASSIFIER, PAIRS, QUANTITIES
from domainbed_gs.studies.comparison import MethodCell
from domainbed_gs.studies.tables import TableStyle, notes_on_models, print_method_tables
from domainbed_gs.trained_models.table import Row

STYLE = TableStyle("Pairs", ".4f", lower="closer", higher="further apart")
NORM_STYLE = TableStyle("Quantity", ".4g")

_WITHOUT_VALUE = (
    "those that are not finite; distances of Hessians with a standard error, from the random vectors, above "
    f"{MOST_ERROR}; and distances beyond chance if chance makes more than {1 - LEAST_SHARE:.0%} of "
    "|u|^2 + |v|^2"
)


def print_tables(rows: Sequence[Row], baseline: str, format: str) -> None:
    """Print a table for each dataset, part, kind of parameters and quantity, then what the numbers mean.

    Args:
        rows: rows of alignment.csv.
        baseline: method that the others are compared with.
        format: a format of `domainbed.results.printing`.
    """
    cells = compare_methods(rows, baseline)
    print_method_tables([cell for cell in cells if cell.table[-1] != NORMS], _title, STYLE, format)
    print_method_tables([cell for cell in cells if cell.table[-1] == NORMS], _title, NORM_STYLE, format)
    print_paragraphs(_explanation(rows, cells, baseline), format)


def _title(table: tuple[str, ...]) -> str:
    dataset, part, parameters, quantity = table
    which = "all trained parameters" if parameters == ALL else f"the {parameters}"
    what = "squared norms, sources" if quantity == NORMS else f"distance of {QUANTITIES[quantity]}"
    return f"Dataset: {Path(dataset).name}, part {part}: {what}, {which}"


def _explanation(rows: Sequence[Row], cells: Sequence[MethodCell], baseline: str) -> list[str]:
    shown = dict.fromkeys(cell.label for cell in cells if cell.table[-1] != NORMS)
    lines = [
        f"Pairs: {'; '.join(f'{pair}: {PAIRS[pair]}' for pair in shown if pair in PAIRS)}. All pairs are in "
        f"{ALIGNMENT}.",
        "Distance of two vectors u and v: |u - v|^2 / (|u|^2 + |v|^2), which is 0 if they are equal and 1 if "
        "they are orthogonal. Each environment gives two groups of samples; a distance between environments "
        "is over the pairs of their groups. Those within an environment show what chance alone makes.",
        "Beyond chance: what chance adds to |u - v|^2 and to |u|^2 + |v|^2, which the distances within the "
        "environments tell, is subtracted from both before the division. This estimates the distance of the "
        "vectors of all possible samples. It can be below 0. Only it compares methods, because the other "
        "distances depend on how noisy a method's gradients are.",
        "Squared norms: mean |u|^2 of the sources. Distances are divided by such norms, so a method that "
        "makes all vectors smaller brings them no closer.",
        f"Measured on {rows[0]['samples']} samples of each environment at most, in evaluation mode.",
        "SD: standard deviation over trials. A trial's value is the mean over targets.",
        *_on_hessians(rows, cells),
        *_on_classifiers(rows),
    ]
    return [*lines, *notes_on_models(rows, cells, baseline, _WITHOUT_VALUE)]


def _on_hessians(rows: Sequence[Row], cells: Sequence[MethodCell]) -> list[str]:
    if not any(cell.table[-1] == "hessian" for cell in cells):
        return []
    return [
        f"Diagonals of Hessians are exact if the logits are linear in each layer's parameters alone; else "
        f"{rows[0]['probes']} random vectors estimate them, and such a distance can be below 0."
    ]


def _on_classifiers(rows: Sequence[Row]) -> list[str]:
    """A note on methods that lack the rows of the classifier, which others have."""
    with_rows = {row["algorithm"] for row in rows if row["parameters"] == CLASSIFIER}
    without = REGISTRY.order({row["algorithm"] for row in rows} - with_rows)
    if not without:
        return []
    return [
        f"Note: {', '.join(without)} predict with no layer of their `classifier`, and have no rows of "
        f"{CLASSIFIER}."
    ]

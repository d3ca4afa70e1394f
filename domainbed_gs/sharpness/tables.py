"""Tables of methods by the sharpness of their models."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from domainbed.results.printing import print_paragraphs
from domainbed_gs.sharpness.comparison import GROUPS, LARGEST, RATIO, compare_methods
from domainbed_gs.sharpness.settings import QUANTITIES, SHARPNESS
from domainbed_gs.studies.comparison import MethodCell
from domainbed_gs.studies.tables import TableStyle, notes_on_models, print_method_tables
from domainbed_gs.trained_models.table import Row

_WITHOUT_VALUE = "those that are not finite, and ratios to a pooled value that is not positive"

STYLE, RATIO_STYLE = TableStyle("Loss", ".4g"), TableStyle("Quantity", ".3f")


def print_tables(rows: Sequence[Row], baseline: str, format: str) -> None:
    """Print a table for each dataset, part and quantity, those of the ratios, and what the numbers mean.

    Args:
        rows: rows of sharpness.csv.
        baseline: method that the others are compared with.
        format: a format of `domainbed.results.printing`.
    """
    cells = compare_methods(rows, baseline)
    print_method_tables([cell for cell in cells if cell.table[-1] != RATIO], _title, STYLE, format)
    print_method_tables([cell for cell in cells if cell.table[-1] == RATIO], _title, RATIO_STYLE, format)
    print_paragraphs(_explanation(rows, cells, baseline), format)


def _title(table: tuple[str, ...]) -> str:
    dataset, part, quantity = table
    meaning = "sharpest source / pooled loss" if quantity == RATIO else QUANTITIES[quantity]
    return f"Dataset: {Path(dataset).name}, part {part}: {meaning}"


def _explanation(rows: Sequence[Row], cells: Sequence[MethodCell], baseline: str) -> list[str]:
    first = rows[0]
    meanings = ", ".join(f"{name}: {meaning}" for name, meaning in GROUPS.items())
    lines = [
        f"{meanings}, in the table of cross-entropies called {LARGEST}. All values are in {SHARPNESS}.",
        f"Rises are those of the mean cross-entropy within a ball of radius {first['rho']} around the "
        f"trained parameters, each on the loss of its own row; measured on {first['samples']} samples of "
        "each environment at most, in evaluation mode.",
        "Sharpest source / pooled loss: 1 if no single source is sharper than the pooled loss; large in what "
        "DGSAM's paper calls a fake flat minimum.",
        "SD: standard deviation over trials. A trial's value is the mean over its targets.",
    ]
    return [*lines, *notes_on_models(rows, cells, baseline, _WITHOUT_VALUE)]

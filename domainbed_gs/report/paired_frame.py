"""The frame "paired" of `domainbed.collect`: the numbers of `--paired`, one row for each cell."""

from __future__ import annotations

import argparse
import dataclasses
from collections.abc import Sequence
from dataclasses import replace
from typing import TYPE_CHECKING, Any, get_type_hints

from domainbed.results.report import ReportContext
from domainbed_gs.report.frame import Row, frame
from domainbed_gs.report.paired import PairedOptions
from domainbed_gs.report.trial_splits import trial_splits

if TYPE_CHECKING:
    import pandas as pd

_NULLABLE: dict[Any, str] = {int | None: "Int64", bool | None: "boolean", float | None: "float64"}
"""Types of `Row` with missing values -> dtypes of pandas."""


def paired_frame(context: ReportContext, selection: Sequence[str] | None) -> pd.DataFrame:
    """The cells of a paired comparison with `baseline`, which is an option as in `--baseline`.

    Columns: the attributes of `domainbed_gs.report.frame.Row` that its CSV has. Accuracies are in %,
    differences in percentage points; another metric is in its unit, and its columns lack the suffixes.

    Args:
        context: the runs and the options.
        selection: compare by each of these methods; by default by that of the option `paired_selection`.

    Raises: UnknownName or UsageError as `domainbed_gs.report.paired.PairedSection.write`.
    """
    import pandas as pd

    splits = trial_splits(context.records)
    rows: list[Row] = []
    for name in selection or [context.args.paired_selection]:
        args = argparse.Namespace(**{**vars(context.args), "paired_selection": name})
        chosen = replace(context, args=args)
        options = PairedOptions.of(chosen)
        reports = options.compare(options.accuracies(chosen), args.baseline, splits)
        for part, report in reports.items():
            rows += frame(report, options.selection, part)
    table = pd.DataFrame([row.values() for row in rows])
    hints = get_type_hints(Row)
    names = zip((field.name for field in dataclasses.fields(Row)), table.columns, strict=False)
    return table.astype(
        {column: _NULLABLE[hints[name]] for name, column in names if hints[name] in _NULLABLE}
    )

"""Report another metric than accuracy: what a selection method reads at the step that it selects."""

from __future__ import annotations

import math

from domainbed.errors import UsageError
from domainbed.metrics import ACCURACY, get_metric
from domainbed.model_selection import SelectionMethod
from domainbed.records.results_file import Record


def reporting(method: type[SelectionMethod], name: str) -> type[SelectionMethod]:
    """A variant of `method` that selects the same, and reports the metric `name`.

    The result is NaN if the selected record lacks the metric, as those of earlier versions do.

    Raises:
        UnknownName: there is no such metric.
        UsageError: `method` does not declare the key of what it reports.
    """
    measure = get_metric(name)
    if measure is ACCURACY:
        return method
    if not method.test_key.endswith("_acc"):
        raise UsageError(
            f"--metric {name}: the selection method {method.name} does not declare its test_key; "
            "leave out the flag, or choose another method by --selection"
        )
    key = f"{method.test_key.removesuffix('acc')}{name}"

    class Reporting(method):  # type: ignore[misc, valid-type] # a base that is only known at run time
        reported = method.reported.replace("accuracy", measure.title)
        metric = measure

        @classmethod
        def reported_acc(cls, record: Record) -> float | None:
            # What can be selected depends on the accuracy, so that the metric changes no selection.
            (target,) = record["args"]["test_envs"]
            return None if super().reported_acc(record) is None else record.get(key.format(target), math.nan)

    return Reporting

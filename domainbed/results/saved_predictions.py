"""The saved predictions of the runs that selection chose."""

from __future__ import annotations

import re
from collections.abc import Iterable
from pathlib import Path

from domainbed.errors import UsageError
from domainbed.model_selection import SelectionMethod, selected_step
from domainbed.predictions import NAME, PartPredictions, Predictions, read_predictions
from domainbed.records.results_file import Record
from domainbed.results.hparam_search import Candidate

_PART = re.compile(r"(?:fd_)?env\{\}_(in|out|test)_acc")


def run_directory(sweep: Path, record: Record) -> Path:
    """Directory of the run that wrote `record`, below the sweep directory, which may have been moved."""
    return sweep / Path(str(record["args"].get("output_dir", ""))).name


def any_saved(sweep: Path, records: Iterable[Record]) -> bool:
    """Whether one of the runs that wrote `records` has saved predictions."""
    return any((run / NAME).exists() for run in {run_directory(sweep, record) for record in records})


def reported_part(method: type[SelectionMethod], environment: int) -> str:
    """Name of the part of the target environment whose accuracy `method` reports, such as "env0_in".

    Raises: UsageError if the method does not declare it.
    """
    found = _PART.fullmatch(method.test_key)
    if found is None:
        raise UsageError(
            f"selection method {method.name} does not declare which part of the target it reports"
        )
    return f"env{environment}_{found[1]}"


def predictions_at_selected_step(
    sweep: Path, candidate: Candidate, method: type[SelectionMethod]
) -> tuple[Predictions, int]:
    """The predictions of the run that holds out the target alone, and the step that `method` selects.

    Raises: UsageError if the run has not saved them.
    """
    run = candidate.run
    predictions = read_predictions(run_directory(sweep, run[0]))
    step = selected_step(method, candidate.records if method.reads_pairs else run)
    if step is None:
        raise UsageError(f"selection method {method.name} does not say which step it selects")
    return predictions, predictions.step_of(step)


def reported_predictions(
    sweep: Path, candidate: Candidate, method: type[SelectionMethod]
) -> tuple[PartPredictions, list[str]]:
    """The predictions behind the accuracy that `method` reports for a candidate, and the classes' names.

    Raises: UsageError if the run has not saved them.
    """
    predictions, step = predictions_at_selected_step(sweep, candidate, method)
    return predictions.part(reported_part(method, candidate.environment), step), predictions.classes

"""Why a cell of a table, or one trial of it, has no result."""

from __future__ import annotations

import enum
import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass

from domainbed.metrics import Metric
from domainbed.model_selection import SelectionMethod, get_test_records
from domainbed.records.query import Q
from domainbed.records.results_file import Record
from domainbed.results.trials import Trial


class Reason(enum.Enum):
    """Why there is no result; the values are words for notes."""

    NO_RUN = "no run"
    QUEUED = "not started"
    RUNNING = "running"
    STOPPED = "stopped before the end"
    FAILED = "failed"
    SEVERAL_EXPERIMENTS = "several experiments"
    NO_VALIDATION = "no validation images"
    NOT_RECORDED = "not recorded"
    INFINITE = "infinite"


@dataclass(frozen=True)
class MissingResult:
    """The reason, and what is to be known or done about it.

    Attributes:
        reason: the reason.
        detail: more words, as the end of a note: which settings differ, what to do; may be empty.
    """

    reason: Reason
    detail: str = ""

    def __str__(self) -> str:
        return f"{self.reason.value} ({self.detail})" if self.detail else self.reason.value


CellKey = tuple[str, str, int]
"""Names of the dataset and the algorithm, and index of the target."""

MissingTrials = dict[CellKey, dict[Trial, MissingResult]]
"""The reason for each trial of a cell that has no result."""


def explain(method: type[SelectionMethod], records: Iterable[Record]) -> MissingResult:
    """Why `method` gives no result for the `records` of one trial, dataset, algorithm and target."""
    records = Q(records)
    alone = get_test_records(records)
    if alone and method.validated(alone) == ():
        lacking = "the target has none" if method.selects_on_target else "no source environment has any"
        return MissingResult(Reason.NO_VALIDATION, f"{lacking}; increase --holdout_fraction, or add images")
    needs = f"the method needs {method.needs}" if method.needs else "the method reads other accuracies"
    held_out = " or ".join(str(n) for n in sorted({len(record["args"]["test_envs"]) for record in records}))
    found = "" if alone else f"; these runs hold out {held_out} environments each"
    return MissingResult(Reason.NOT_RECORDED, needs + found)


def without_metric(metric: Metric, value: float) -> MissingResult:
    """Why a trial has no result in a metric whose value at the selected step is NaN or infinite."""
    if math.isinf(value):
        return MissingResult(Reason.INFINITE, f"the {metric.title} at the selected step")
    return MissingResult(
        Reason.NOT_RECORDED,
        f"the record of the selected step lacks the {metric.title}, or it is not a number; records of "
        "earlier versions have accuracies only",
    )


def reasons_of(missing: Mapping[CellKey, Mapping[Trial, MissingResult]], algorithm: str) -> list[str]:
    """The different reasons why trials of `algorithm` have no result, in words."""
    own = [trials for (_, name, _), trials in missing.items() if name == algorithm]
    return list(dict.fromkeys(str(each) for trials in own for each in trials.values()))


def trials_text(trials: Sequence[Trial]) -> str:
    """Trials in words: "trial 0", "trials 0, 2"."""
    return f"trial{'s' if len(trials) > 1 else ''} {', '.join(map(str, trials))}"

"""How many trials an experiment takes: from the paired differences and the step times of a pilot."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from statistics import fmean, stdev
from typing import Any

from domainbed.errors import UsageError
from domainbed.records.query import Q
from domainbed.records.results_file import Record
from domainbed.records.sweep_records import by_run
from domainbed_gs.report.comparison import Cell, PairedReport
from domainbed_gs.report.normal_power import (
    deviation_interval,
    normal_smallest_detectable,
    normal_trials_needed,
)
from domainbed_gs.report.power import smallest_detectable, trials_needed


@dataclass(frozen=True)
class Goal:
    """What the experiment is to find.

    Attributes:
        difference: smallest difference of interest, a fraction above 0.
        power: probability of finding it.
        alpha: level of a family of tests.
    """

    difference: float
    power: float
    alpha: float


@dataclass(frozen=True)
class Row:
    """The plan for one method on one target, or on the average. Differences are fractions.

    Attributes:
        cell: the method in the pilot.
        family: number of tests that the plan corrects for.
        pairs: number of paired trials of the pilot.
        deviation: standard deviation of the paired differences (ddof=1).
        interval: its 95 % interval, if they are normal.
        trials: number of trials that find the difference, by resampling; None above `power.MOST_TRIALS`.
        normal_trials: the same by the normal model.
        normal_range: the same for the two ends of `interval`.
        smallest: smallest difference that the pilot's trials could have found, by resampling; None if none.
        normal_smallest: the same by the normal model.
    """

    cell: Cell
    family: int
    pairs: int
    deviation: float
    interval: tuple[float, float]
    trials: int | None
    normal_trials: int | None
    normal_range: tuple[int | None, int | None]
    smallest: float | None
    normal_smallest: float | None

    @property
    def enough(self) -> int | None:
        """The larger of the two numbers of trials; None if there is none."""
        return most((self.trials, self.normal_trials))


@dataclass(frozen=True)
class Plan:
    """The plan for all methods.

    Attributes:
        baseline: name of the baseline.
        goal: what the experiment is to find.
        primary: averages over targets, or the only target of a dataset.
        secondary: single targets.
        hours_per_trial: time of one trial of all methods on all targets; None if records lack step times.
        methods: number of methods, without the baseline, that the pilot has.
    """

    baseline: str
    goal: Goal
    primary: tuple[Row, ...]
    secondary: tuple[Row, ...]
    hours_per_trial: float | None
    methods: int

    @property
    def trials(self) -> int | None:
        """Number of trials that is enough for each row of the primary family; None if there is none."""
        return most(row.enough for row in self.primary)

    def hours(self, trials: int | None) -> float | None:
        """Time of `trials` trials of all methods on all targets; None if unknown."""
        return None if trials is None or self.hours_per_trial is None else trials * self.hours_per_trial


def make_plan(
    report: PairedReport, records: Q[Record], goal: Goal, methods: int | None = None, progress: bool = False
) -> Plan:
    """Plan an experiment.

    Args:
        report: the comparison of the pilot's methods.
        records: records of the pilot.
        goal: what is to be found.
        methods: number of methods of the experiment, without the baseline; None: as many as the pilot has.
        progress: show a progress bar on stderr if it takes longer than a second.

    Raises: UsageError if no method has two trials, on all targets, that the baseline has too.
    """
    from tqdm import tqdm

    families = [_tested(report.primary), _tested(report.secondary)]
    names = {cell.algorithm for family in families for cell in family}
    if not families[0]:
        raise UsageError(
            f"the pilot has no method with two trials on all targets that {report.baseline} has too; "
            "a plan needs the spread of paired differences over trials"
        )
    jobs = [(cell, _family_size(family, methods)) for family in families for cell in family]
    rows = [
        _row(cell, size, goal)
        for cell, size in tqdm(jobs, desc="Planning", ncols=80, leave=False, delay=1, disable=not progress)
    ]
    first = len(families[0])
    return Plan(
        baseline=report.baseline,
        goal=goal,
        primary=tuple(rows[:first]),
        secondary=tuple(rows[first:]),
        hours_per_trial=hours_per_trial(records),
        methods=len(names),
    )


def hours_per_trial(records: Q[Record]) -> float | None:
    """Training time of one trial, in hours: all methods, targets and hyper-parameters, one after the other.

    The time of a run is the sum of step times over its updates, without evaluation and start-up. Each run
    counts with its mean over trials.

    Returns: the time; None if no record has a step time.
    """
    hours: dict[tuple[Any, ...], dict[int, float]] = defaultdict(lambda: defaultdict(float))
    for args, of_run in by_run(records):
        key = args["dataset"], args["algorithm"], tuple(args["test_envs"]), args["hparams_seed"]
        hours[key][args["trial_seed"]] += training_seconds(of_run) / 3600
    total = sum(fmean(of_trial.values()) for of_trial in hours.values())
    return total or None


def training_seconds(records: Iterable[Record]) -> float:
    """Time of the updates of one run, from its records in order.

    A record's step time is the mean over the updates since the record before.
    """
    seconds, previous = 0.0, -1
    for record in records:
        seconds += record.get("step_time", 0.0) * (record["step"] - previous)
        previous = record["step"]
    return seconds


def most(numbers: Iterable[int | None]) -> int | None:
    """The largest of `numbers`; None if any of them is."""
    known = list(numbers)
    return None if None in known else max((number for number in known if number is not None), default=None)


def _tested(cells: Sequence[Cell]) -> list[Cell]:
    return [cell for cell in cells if cell.comparison and cell.comparison.pairs > 1 and not cell.left_out]


def _family_size(cells: Sequence[Cell], methods: int | None) -> int:
    """Number of tests of a family with the same targets and `methods` methods."""
    if methods is None:
        return len(cells)
    return methods * len({(cell.dataset, cell.target) for cell in cells})


def _row(cell: Cell, family: int, goal: Goal) -> Row:
    assert cell.comparison is not None
    differences = cell.comparison.differences
    deviation, interval = stdev(differences), deviation_interval(differences)
    low, high = (
        normal_trials_needed(each, goal.difference, family, goal.power, goal.alpha) for each in interval
    )
    return Row(
        cell=cell,
        family=family,
        pairs=len(differences),
        deviation=deviation,
        interval=interval,
        trials=trials_needed(differences, goal.difference, family, goal.power, goal.alpha),
        normal_trials=normal_trials_needed(deviation, goal.difference, family, goal.power, goal.alpha),
        normal_range=(low, high),
        smallest=smallest_detectable(differences, family, goal.power, goal.alpha),
        normal_smallest=normal_smallest_detectable(
            deviation, len(differences), family, goal.power, goal.alpha
        ),
    )

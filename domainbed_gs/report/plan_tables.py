"""A plan as tables and sentences."""

from __future__ import annotations

from collections.abc import Sequence

from domainbed.results.printing import print_paragraphs, print_section_table
from domainbed_gs.report.paired_tables import NOTHING
from domainbed_gs.report.plan import Plan, Row
from domainbed_gs.report.power import MOST_TRIALS

FEW_TRIALS = 8
"""A pilot with fewer trials gets a caution: the interval of its SD ends at more than twice the SD."""

COLUMNS = (
    "Pilot",
    "SD",
    "SD, 95 %",
    "Trials",
    "Normal",
    "Normal, 95 %",
    "Smallest",
    "Smallest, normal",
    "Hours",
)
"""Labels of the columns after those that name a row."""


def print_plan(plan: Plan, selection: str, notes: Sequence[str], format: str) -> None:
    """Print the answer, a table of each family, the meaning of the columns, and notes.

    Args:
        plan: the plan.
        selection: short name of the selection method.
        notes: sentences about the pilot.
        format: "text", "latex", "markdown" or "csv". In CSV one table has all rows, and sentences go to
            stderr.
    """
    print_paragraphs([answer(plan)], format)
    if format == "csv":
        rows = [_csv_row(plan, row, selection) for row in (*plan.primary, *plan.secondary)]
        texts = [["" if value is None else str(value) for value in row.values()] for row in rows]
        print_section_table("Plan", list(rows[0]), texts, format)
    else:
        _print_family(plan, plan.primary, format)
        _print_family(plan, plan.secondary, format)
    print_paragraphs([*meanings(plan), *(f"Note: {note}" for note in notes)], format)


def answer(plan: Plan) -> str:
    """How many trials are enough for the primary family, and how long they take."""
    goal, size = plan.goal, plan.primary[0].family
    what = f"a difference of {points(goal.difference)} to {plan.baseline}"
    if plan.trials is None:
        return f"More than {MOST_TRIALS} trials are needed to find {what} for every method."
    hours = plan.hours(plan.trials)
    of_average = "'s average" if any(row.cell.target is None for row in plan.primary) else ""
    tests = "1 test" if size == 1 else f"{size} tests"
    return (
        f"{plan.trials} trials find {what} with probability {goal.power:g} for each method{of_average} "
        f"({tests}, corrected p below {goal.alpha:g})."
        + ("" if hours is None else f" Training takes {duration(hours)} in all.")
    )


def meanings(plan: Plan) -> list[str]:
    """The meaning of each column."""
    goal = plan.goal
    return [
        "Pilot: paired trials. SD: standard deviation of their differences (ddof=1) in percentage points, "
        "and its 95 % interval if they are normal.",
        "Trials: paired trials at which the exact signed-rank test finds a shift of "
        f"{points(goal.difference)}, in the right direction, with probability {goal.power:g}. The level of a "
        f"test is {goal.alpha:g} divided by the size of its family (Bonferroni). Holm's correction never "
        "needs more trials.",
        "Trials resamples the pilot's differences. Normal uses only their standard deviation; Normal, 95 % "
        "uses the ends of its interval.",
        "Smallest: the smallest difference, in points, that as many trials as the pilot's find with this "
        f"probability; {NOTHING} if they find none.",
        f"Hours: training of the pilot's {plan.methods} methods and {plan.baseline} on all targets, one run "
        "after the other, for the larger of the two numbers of trials, by the step times in the records. "
        "Evaluation and start-up are not included.",
    ]


def pilot_notes(plan: Plan, splits: str) -> list[str]:
    """Sentences about what the pilot cannot tell.

    Args:
        plan: the plan.
        splits: kind of the pilot's splits (`trial_splits.TrialSplits`).
    """
    notes = []
    rows = (*plan.primary, *plan.secondary)
    fewest = min(row.pairs for row in rows)
    if fewest < FEW_TRIALS:
        notes.append(
            f"The pilot has only {fewest} paired trials, so its standard deviations are uncertain, "
            "and resampling says little. Plan for the upper end of Normal, 95 %, or plan again after a few "
            "more trials."
        )
    if splits in ("shared", "repeated"):
        shared = "one split" if splits == "shared" else "a split if they differ in --seed only"
        notes.append(
            f"The pilot's trials share {shared} of the data. Their variance lacks the part that is due to "
            "the split: trials with their own splits vary more, and more of them are needed."
        )
    if splits == "unknown":
        notes.append(
            "It is unknown whether the pilot's trials have their own splits. If they share one, their "
            "variance lacks the part that is due to the split."
        )
    if any(row.deviation == 0 for row in rows):
        notes.append("Some differences are equal in all trials. Nothing can be planned from them.")
    return notes


def duration(hours: float) -> str:
    """A time in words: "about 12 minutes", "about 3.5 hours"."""
    if hours < 1 / 60:
        return "less than a minute"
    if hours < 1:
        minutes = round(60 * hours)
        return f"about {minutes} {'minute' if minutes == 1 else 'minutes'}"
    return f"about {hours:.1f} hours" if hours < 100 else f"about {hours:,.0f} hours"


def _print_family(plan: Plan, rows: Sequence[Row], format: str) -> None:
    """Print a table for each dataset."""
    for dataset in dict.fromkeys(row.cell.dataset for row in rows):
        of_dataset = [row for row in rows if row.cell.dataset == dataset]
        first = of_dataset[0]
        kind = "averages over targets" if first.cell.target is None else "single targets"
        if first.cell.primary and first.cell.target is not None:
            kind = "only target"
        goal = points(plan.goal.difference)
        title = f"Dataset: {dataset}, {kind} (family of {first.family}), trials for {goal}"
        texts = [[row.cell.target_name, row.cell.algorithm, *_text_row(plan, row)] for row in of_dataset]
        print_section_table(title, ["Target", "Method", *COLUMNS], texts, format)


def _text_row(plan: Plan, row: Row) -> list[str]:
    hours = plan.hours(row.enough)
    low, high = row.normal_range
    return [
        str(row.pairs),
        _points(row.deviation),
        " to ".join(map(_points, row.interval)),
        _trials(row.trials),
        _trials(row.normal_trials),
        f"{_trials(low)} to {_trials(high)}",
        _points(row.smallest),
        _points(row.normal_smallest),
        NOTHING if hours is None else f"{hours:.2g}" if hours < 10 else f"{hours:,.0f}",
    ]


def _csv_row(plan: Plan, row: Row, selection: str) -> dict[str, object]:
    cell, goal = row.cell, plan.goal
    assert cell.comparison is not None
    return {
        "dataset": cell.dataset,
        "target_env": cell.target,
        "target": cell.target_name,
        "algorithm": cell.algorithm,
        "baseline": plan.baseline,
        "selection": selection,
        "family": row.family,
        "goal_points": 100 * goal.difference,
        "power": goal.power,
        "alpha": goal.alpha,
        "pairs": row.pairs,
        "difference_points": 100 * cell.comparison.difference,
        "std_points": 100 * row.deviation,
        "std_low_points": 100 * row.interval[0],
        "std_high_points": 100 * row.interval[1],
        "trials": row.trials,
        "normal_trials": row.normal_trials,
        "normal_trials_low": row.normal_range[0],
        "normal_trials_high": row.normal_range[1],
        "smallest_detectable_points": None if row.smallest is None else 100 * row.smallest,
        "normal_smallest_detectable_points": None
        if row.normal_smallest is None
        else 100 * row.normal_smallest,
        "hours": plan.hours(row.enough),
    }


def _trials(number: int | None) -> str:
    return f">{MOST_TRIALS}" if number is None else str(number)


def _points(share: float | None) -> str:
    return NOTHING if share is None else f"{100 * share:.2f}"


def points(share: float) -> str:
    """A difference in words: "1 point", "0.5 points"."""
    number = f"{round(100 * share, 6):g}"
    return f"{number} {'point' if number == '1' else 'points'}"

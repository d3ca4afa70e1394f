"""Comparison of methods with a baseline on the same trials: a cell for each dataset, target and method."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from statistics import fmean

import numpy as np

from domainbed.errors import UsageError, hint
from domainbed.results.accuracies import Accuracies, ShownDataset
from domainbed.results.missing_cells import reasons_of
from domainbed_gs.report.cells import ROPE, Cell, Comparison, PairedReport, Trials
from domainbed_gs.report.families import judge
from domainbed_gs.report.signed_rank import (
    DECIMALS,
    Floats,
    equivalence_p,
    hodges_lehmann,
    shift_curve,
)
from domainbed_gs.report.statistics import ALPHA, better_probability, mean_permutation_p

__all__ = ["AVERAGE", "ROPE", "Cell", "Comparison", "PairedReport", "compare", "compare_all"]

AVERAGE = "Average"
"""Name of the row over targets."""


def compare(
    method: Sequence[float], baseline: Sequence[float], rope: float = ROPE, sign: int = 1
) -> Comparison:
    """Compare a method with the baseline on the same n trials.

    Args:
        method: accuracies (n,) of the method.
        baseline: accuracies (n,) of the baseline, in the same order of trials.
        rope: largest difference that makes no practical difference, a fraction.
        sign: 1 if larger values are better, -1 if smaller ones are.

    Raises: UsageError if the two differ in length.
    """
    if len(method) != len(baseline):
        raise UsageError(f"cannot pair {len(method)} accuracies with {len(baseline)} of the baseline")
    differences: Floats = np.subtract(method, baseline, dtype=np.float64)
    rounded = differences.round(DECIMALS)
    gains = sign * rounded
    wins, ties, losses = (int(kind.sum()) for kind in (gains > 0, gains == 0, gains < 0))
    paired = len(differences) > 0
    better = better_probability(wins, ties, losses)
    curve = shift_curve(differences)
    return Comparison(
        differences=tuple(differences.tolist()),
        pairs=len(differences),
        difference=float(differences.mean()) if paired else math.nan,
        shift=hodges_lehmann(differences),
        interval=curve.interval(ALPHA),
        p=curve.p_of_zero if paired else None,
        wins=wins,
        ties=ties,
        losses=losses,
        probability_better=better[0] if better else None,
        probability_interval=better[1] if better else None,
        mean_p=mean_permutation_p(differences) if paired else None,
        equivalence_p=equivalence_p(differences, rope) if paired else None,
        sign=sign,
    )


def compare_all(
    accuracies: Accuracies,
    baseline: str,
    *,
    rope: float | None = None,
    correction: str = "holm",
    splits: str = "unknown",
) -> PairedReport:
    """Compare every method with `baseline` on every target, and on the average over a dataset's targets.

    With `accuracies.over_targets` "worst", on the worst target of each trial instead of the average.

    A method without accuracies on a dataset has no cells there, and neither has a target without accuracies.

    Args:
        accuracies: results of `domainbed.results.accuracies.compute_accuracies`; NaN counts as missing.
        baseline: name of an algorithm.
        rope: largest difference that makes no practical difference, a fraction; by default that of the
            metric.
        correction: "holm" or "none" (see `domainbed_gs.report.families`).
        splits: whether trials have their "own" splits or "shared" ones, or "unknown".

    Raises: UsageError if the baseline has no accuracies; the message says why, and names the algorithms that
        have some.
    """
    metric = accuracies.metric
    rope = metric.rope / metric.scale if rope is None else rope
    numbers = {key: _finite(trials) for key, trials in accuracies.by_target.items()}
    with_results = {algorithm for (_, algorithm, _), trials in numbers.items() if trials}
    names = [name for name in accuracies.algorithms if name in with_results]
    if baseline not in names:
        reasons = "; ".join(reasons_of(accuracies.missing, baseline)) or "the sweep has no run of it"
        error = UsageError(
            f"--baseline {baseline} has no results under this selection method: {reasons}; algorithms with "
            f"results: {', '.join(names) or 'none'}"
        )
        error.add_note(hint(baseline, names) if names else "Try another --paired_selection.")
        raise error
    cells: list[Cell] = []
    for dataset in accuracies.datasets:
        own = {key[1:]: trials for key, trials in numbers.items() if key[0] == dataset.name and trials}
        present = {algorithm for algorithm, _ in own}
        methods = [baseline, *(name for name in names if name in present and name != baseline)]
        cells += _cells(dataset, own, methods, rope, accuracies) if own else []
    return PairedReport(
        baseline=baseline,
        cells=judge(cells, correction),
        rope=rope,
        correction=correction,
        splits=splits,
        metric=metric,
        over_targets=accuracies.over_targets,
    )


def _finite(trials: Trials) -> Trials:
    return {trial: trials[trial] for trial in sorted(trials) if not math.isnan(trials[trial])}


def _cells(
    dataset: ShownDataset,
    own: dict[tuple[str, int], Trials],
    methods: Sequence[str],
    rope: float,
    accuracies: Accuracies,
) -> Iterator[Cell]:
    """Cells of one dataset.

    Args:
        dataset: the dataset.
        own: (algorithm, target) -> trials.
        methods: names of the methods, the baseline first.
        rope: largest difference that makes no practical difference, a fraction.
        accuracies: the metric, and how results on several targets become one.
    """
    targets = sorted({target for _, target in own})
    for target in targets:
        of_target = {method: own.get((method, target), {}) for method in methods}
        for method, trials in of_target.items():
            yield Cell(
                dataset=dataset.name,
                target=target,
                target_name=dataset.targets[target],
                algorithm=method,
                trials=trials,
                primary=len(targets) == 1,
                comparison=_compare_shared(trials, of_target[methods[0]], rope, accuracies)
                if method != methods[0]
                else None,
            )
    if len(targets) > 1:
        yield from (
            _average(dataset, own, targets, method, methods[0], rope, accuracies) for method in methods
        )


def _average(
    dataset: ShownDataset,
    own: dict[tuple[str, int], Trials],
    targets: Sequence[int],
    method: str,
    baseline: str,
    rope: float,
    accuracies: Accuracies,
) -> Cell:
    """The cell of a method's average, or worst result, over `targets`.

    Its accuracies are those of trials with all targets. It is compared on the targets for which both it and
    the baseline have results; the others are `left_out`.
    """

    def average(name: str, over: Sequence[int]) -> Trials:
        return average_over_targets([own.get((name, target), {}) for target in over], accuracies)

    shared = [target for target in targets if (method, target) in own and (baseline, target) in own]
    return Cell(
        dataset=dataset.name,
        target=None,
        target_name=accuracies.summary_title,
        algorithm=method,
        trials=average(method, targets),
        comparison=None
        if method == baseline
        else _compare_shared(average(method, shared), average(baseline, shared), rope, accuracies),
        left_out=tuple(dataset.targets[target] for target in targets if target not in shared),
    )


def _compare_shared(trials: Trials, baseline: Trials, rope: float, accuracies: Accuracies) -> Comparison:
    shared = sorted(trials.keys() & baseline.keys())
    sign = accuracies.metric.sign
    return compare([trials[t] for t in shared], [baseline[t] for t in shared], rope, sign)


def average_over_targets(columns: Sequence[Trials], accuracies: Accuracies) -> Trials:
    """Mean over the targets, for each trial that has all of them; empty without targets.

    Args:
        columns: the results on each target.
        accuracies: says whether to take the mean over targets or the worst of them.
    """
    shared = set.intersection(*(set(trials) for trials in columns)) if columns else set()
    over = accuracies.summary if accuracies.over_targets == "worst" else fmean
    return {trial: over([trials[trial] for trials in columns]) for trial in sorted(shared)}

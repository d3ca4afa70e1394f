"""What to know before believing a paired comparison: missing trials, false pairs, too few pairs."""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Callable, Iterable, Iterator

from domainbed.model_selection import get_test_records
from domainbed.records.jsonl import Record
from domainbed.records.query import Q
from domainbed.sweep.manifest import Manifest
from domainbed_gs.report.comparison import PairedReport
from domainbed_gs.report.statistics import ALPHA, pairs_needed, smallest_p

Key = tuple[str, int, str]
"""(dataset, target, algorithm)"""

Runs = dict[Key, dict[tuple[int, int], Record]]
"""Runs with one target: key -> (trial seed, hparams seed) -> the last record."""


def notes(report: PairedReport, records: Q[Record], manifest: Manifest | None) -> list[str]:
    """A sentence or two for each thing to know; none if trials are complete, truly paired and enough."""
    runs: Runs = defaultdict(dict)
    for record in get_test_records(records).sorted(lambda record: record["step"]):
        args = record["args"]
        key = (args["dataset"], args["test_envs"][0], args["algorithm"])
        runs[key][args["trial_seed"], args["hparams_seed"]] = record
    jobs = [job for job in manifest.jobs.values() if len(job["test_envs"]) == 1] if manifest else []
    return [
        *_without_results(report, runs, jobs),
        *_missing_trials(report, runs, jobs),
        *_unequal_searches(report, runs),
        *_false_pairs(report, runs),
        *_too_few(report),
    ]


def _without_results(report: PairedReport, runs: Runs, jobs: list[Record]) -> Iterator[str]:
    """Datasets, methods and targets that were launched, and of which nothing is shown."""
    launched = {(job["dataset"], job["test_envs"][0], job["algorithm"]) for job in jobs} | runs.keys()
    for dataset in sorted({dataset for dataset, _, _ in launched}):
        cells = report.of(dataset)
        if not cells:
            yield f"{dataset}: no results."
            continue
        of_dataset = [key for key in launched if key[0] == dataset]
        methods = {algorithm for _, _, algorithm in of_dataset} - {cell.algorithm for cell in cells}
        targets = {target for _, target, _ in of_dataset} - {cell.target for cell in cells}
        yield from (f"{dataset}: no results of {method}." for method in sorted(methods))
        yield from (f"{dataset}: no results for target environment {target}." for target in sorted(targets))


def _missing_trials(report: PairedReport, runs: Runs, jobs: list[Record]) -> Iterator[str]:
    """A line for each method and target that lacks a trial which was launched or which another one has."""
    trials: dict[str, set[int]] = defaultdict(set)
    for job in jobs:
        trials[job["dataset"]].add(job["trial_seed"])
    for (dataset, _, _), of_key in runs.items():
        trials[dataset] |= {trial for trial, _ in of_key}
    for cell in report.cells:
        missing = sorted(trials[cell.dataset] - cell.trials.keys())
        if cell.target is None or not missing:
            continue
        if cell.comparison is None:
            effect = "no method is compared there"
        else:
            effect = f"compared with {report.baseline} on {cell.comparison.pairs} shared trials"
        listed = f"trial{'s' * (len(missing) > 1)} {', '.join(map(str, missing))}"
        yield f"{cell.dataset}, target {cell.target_name}: {cell.algorithm} lacks {listed}; {effect}."


def _unequal_searches(report: PairedReport, runs: Runs) -> Iterator[str]:
    """Methods whose hyper-parameters were selected among other seeds than the baseline's."""
    shared: Counter[str] = Counter()
    unequal: Counter[str] = Counter()
    for (dataset, target, algorithm), of_key in runs.items():
        reference = runs.get((dataset, target, report.baseline), {})
        for trial in {trial for trial, _ in of_key} & {trial for trial, _ in reference}:
            shared[algorithm] += 1
            unequal[algorithm] += _seeds_of(of_key, trial) != _seeds_of(reference, trial)
    if unequal.total():
        yield (
            f"Selected among other hparams seeds than {report.baseline}: {_shares(unequal, shared)} trials; "
            "the wider search has an advantage."
        )


def _seeds_of(runs: Iterable[tuple[int, int]], trial: int) -> set[int]:
    return {hparams_seed for of_trial, hparams_seed in runs if of_trial == trial}


def _false_pairs(report: PairedReport, runs: Runs) -> Iterator[str]:
    """Runs of one trial that share less with the baseline's than the comparison takes for granted."""
    checks: tuple[tuple[Callable[[Record], object], str, str], ...] = (
        (_splits, "splits", "their accuracies are on other samples, and the pairs mean nothing."),
        (
            lambda record: record["args"].get("seed"),
            "seed",
            "initialisation and minibatches differ between the methods of a trial, so the pairing is looser "
            "than it could be; `sweep launch --seed_scheme paired` makes them the same.",
        ),
        (lambda record: record["step"], "last step", "a run has not finished, or was trained for longer."),
    )
    for value, what, meaning in checks:
        shared: Counter[str] = Counter()
        different: Counter[str] = Counter()
        for (dataset, target, algorithm), of_key in runs.items():
            reference = runs.get((dataset, target, report.baseline), {})
            for run in of_key.keys() & reference.keys():
                shared[algorithm] += 1
                different[algorithm] += value(of_key[run]) != value(reference[run])
        if different.total():
            shares = _shares(different, shared)
            yield f"Other {what} than {report.baseline} in the same trial: {shares} runs; {meaning}"


def _splits(record: Record) -> list[tuple[str, object]]:
    """All arguments that decide how environments are split, but for the trial seed."""
    return sorted(
        (name, value)
        for name, value in record["args"].items()
        if name.startswith("split") or name == "holdout_fraction"
    )


def _shares(some: Counter[str], of: Counter[str]) -> str:
    return ", ".join(f"{name} in {n} of {of[name]}" for name, n in some.items() if n)


def _too_few(report: PairedReport) -> Iterator[str]:
    """Numbers of pairs with which p cannot be below 0.05, and the same for Holm's p."""
    compared = [cell.comparison for cell in report.cells if cell.holm_p is not None and cell.comparison]
    kinds = Counter((each.pairs, each.ties) for each in compared if each.smallest_p >= ALPHA)
    for (pairs, ties), n in sorted(kinds.items()):
        tied = f", {ties} of them tied" if ties else ""
        number = "1 pair" if pairs == 1 else f"{pairs} pairs"
        yield (
            f"{number}{tied} ({n} of {report.family} tests): the test can never reach p < {ALPHA}, "
            f"the smallest possible p is {smallest_p(pairs - ties):.4g}. "
            f"{pairs_needed()} pairs that are not tied are needed."
        )
    lowest = min((each.smallest_p for each in compared), default=0.0) * report.family
    if lowest >= ALPHA:
        yield (
            f"Holm p cannot be below {min(1.0, lowest):.4g} in a family of {report.family} with these pairs; "
            f"{pairs_needed(report.family)} pairs would be enough for {ALPHA}."
        )

"""Cautions about a paired comparison: missing trials, runs that are not true pairs, too few pairs."""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence

from domainbed.model_selection import get_test_records
from domainbed.records.checks import problem_of_args
from domainbed.records.query import Q
from domainbed.records.results_file import Record
from domainbed.records.target_sets import columns_of, sets_by_dataset
from domainbed.results.accuracies import shown_datasets
from domainbed.results.experiments import pool
from domainbed.results.trials import Trial
from domainbed.sweep.manifest import Manifest
from domainbed_gs.report.comparison import PairedReport
from domainbed_gs.report.statistics import ALPHA
from domainbed_gs.report.trial_splits import split_settings

Key = tuple[str, int, str]
"""(dataset, target, algorithm), with the number of the target's column for sets of targets"""

Runs = dict[Key, dict[tuple[Trial, int], Record]]
"""Last records of the runs with one target: key -> (trial, hparams seed) -> record."""


def cautions(report: PairedReport, records: Q[Record], manifest: Manifest | None) -> list[str]:
    """A sentence or two for each limitation of `report`.

    Args:
        report: the comparison.
        records: records it was made from.
        manifest: jobs that the sweep launched, if known.

    Returns: the sentences; empty if all trials are complete, truly paired and numerous enough.
    """
    pooled = pool(records)
    runs: Runs = defaultdict(dict)
    for method in pooled:
        for (trial, target), variants in method.cells.items():
            alone = get_test_records(Q(variants).flatten())
            for record in alone.sorted(lambda record: record["step"]):
                key = method.dataset, target, method.method
                runs[key][trial, record["args"]["hparams_seed"]] = record
    listed = manifest.jobs.values() if manifest else ()
    sets = sets_by_dataset(records)
    jobs = [
        {**job, "target": target}
        for job in listed
        if not problem_of_args(job) and (job["dataset"] in sets or len(job["test_envs"]) == 1)
        for target in columns_of(job["test_envs"], sets.get(job["dataset"], ()))
    ]
    names = {each.name: each.targets for each in shown_datasets(records) if each.target_sets}
    return [
        *dict.fromkeys(f"{method.conflict}." for method in pooled if method.conflict),
        *_without_results(report, runs, jobs, names),
        *_missing_trials(report, runs, jobs),
        *_unequal_searches(report, runs),
        *_false_pairs(report, runs),
        *_too_few_pairs(report),
    ]


def _without_results(
    report: PairedReport, runs: Runs, jobs: list[Record], names: Mapping[str, Sequence[str]]
) -> Iterator[str]:
    """Datasets, methods and targets that were launched but have no results."""
    launched = {(job["dataset"], job["target"], job["algorithm"]) for job in jobs} | runs.keys()
    for dataset in sorted({dataset for dataset, _, _ in launched}):
        cells = report.of(dataset)
        if not cells:
            yield f"{dataset}: no results."
            continue
        of_dataset = [key for key in launched if key[0] == dataset]
        methods = {algorithm for _, _, algorithm in of_dataset} - {cell.algorithm for cell in cells}
        targets = {target for _, target, _ in of_dataset} - {cell.target for cell in cells}
        yield from (f"{dataset}: no results for {method}." for method in sorted(methods))
        of_sets = names.get(dataset)
        yield from (
            f"{dataset}: no results for target {of_sets[target] if of_sets else f'environment {target}'}."
            for target in sorted(targets)
        )


def _missing_trials(report: PairedReport, runs: Runs, jobs: list[Record]) -> Iterator[str]:
    """A line for each method and target without a trial that was launched or that another method has."""
    trials: dict[str, set[Trial]] = defaultdict(set)
    for job in jobs:
        trials[job["dataset"]].add(Trial(job["trial_seed"]))
    for (dataset, _, _), of_key in runs.items():
        trials[dataset] |= {trial for trial, _ in of_key}
    for cell in report.cells:
        missing = sorted(trials[cell.dataset] - cell.trials.keys())
        if cell.target is None or not missing:
            continue
        if cell.comparison is None:
            effect = f"No method is compared on {'that trial' if len(missing) == 1 else 'those trials'}."
        else:
            shared = _count(cell.comparison.pairs, "shared trial")
            effect = f"It is compared with {report.baseline} on {shared}."
        listed = f"{'trial' if len(missing) == 1 else 'trials'} {', '.join(map(str, missing))}"
        place = f"{cell.dataset}, target {cell.target_name}"
        yield f"{place}: {cell.algorithm} has no result for {listed}. {effect}"


def _unequal_searches(report: PairedReport, runs: Runs) -> Iterator[str]:
    """Methods whose hyper-parameters were selected from other hparams seeds than the baseline's."""
    shared: Counter[str] = Counter()
    unequal: Counter[str] = Counter()
    for (dataset, target, algorithm), of_key in runs.items():
        baseline = runs.get((dataset, target, report.baseline), {})
        for trial in {trial for trial, _ in of_key} & {trial for trial, _ in baseline}:
            shared[algorithm] += 1
            unequal[algorithm] += _hparams_seeds(of_key, trial) != _hparams_seeds(baseline, trial)
    if unequal.total():
        yield (
            f"Hyper-parameters selected from different hparams seeds than those of {report.baseline}: "
            f"{_shares(unequal, shared)} trials. The method with more of them has an advantage."
        )


def _hparams_seeds(runs: Iterable[tuple[Trial, int]], trial: Trial) -> set[int]:
    return {hparams_seed for of_trial, hparams_seed in runs if of_trial == trial}


def _false_pairs(report: PairedReport, runs: Runs) -> Iterator[str]:
    """Runs that share less with the baseline's run of the same trial than the comparison assumes."""
    checks: tuple[tuple[Callable[[Record], object], str, str], ...] = (
        (
            split_settings,
            "splits",
            "Accuracies are measured on different samples, so these are not pairs.",
        ),
        (
            lambda record: record["args"].get("seed"),
            "seed",
            "Initial weights and minibatches differ between the methods of a trial, which weakens the "
            "pairing. Use `sweep launch --seed_scheme paired` to give all methods of a trial the same seed.",
        ),
        (lambda record: record["step"], "last step", "A run has not finished, or was trained for longer."),
    )
    for value, name, meaning in checks:
        shared: Counter[str] = Counter()
        different: Counter[str] = Counter()
        for (dataset, target, algorithm), of_key in runs.items():
            baseline = runs.get((dataset, target, report.baseline), {})
            for run in of_key.keys() & baseline.keys():
                shared[algorithm] += 1
                different[algorithm] += value(of_key[run]) != value(baseline[run])
        if different.total():
            shares = _shares(different, shared)
            yield f"Different {name} from {report.baseline} in the same trial: {shares} runs. {meaning}"


def _shares(some: Counter[str], of: Counter[str]) -> str:
    return ", ".join(f"{name} in {n} of {of[name]}" for name, n in some.items() if n)


def _count(number: int, noun: str) -> str:
    return f"{number} {noun}" if number == 1 else f"{number} {noun}s"


def _too_few_pairs(report: PairedReport) -> Iterator[str]:
    """Families with comparisons that have too few trials to be better or worse, whatever the differences."""
    name = "p" if report.correction == "none" else "Holm p"
    for place, family in (("averages over targets", report.primary), ("single targets", report.secondary)):
        judged = [cell for cell in family if cell.verdict is not None]
        short = [cell for cell in judged if cell.trials_needed is not None]
        if not short:
            continue
        untied = sorted({cell.comparison.untied for cell in short if cell.comparison is not None})
        numbers = str(untied[0]) if len(untied) == 1 else f"{untied[0]} to {untied[-1]}"
        comparisons = f"{len(short)} of {_count(len(judged), 'comparison')}"
        tests = _count(short[0].family, "test")
        yield (
            f"Too few trials for {comparisons} ({place}): with {numbers} untied trials in a family of "
            f"{tests}, {name} cannot be below {ALPHA}, whatever the differences. At least "
            f"{short[0].trials_needed} untied trials are needed."
        )

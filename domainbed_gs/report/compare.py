"""Report section `compare`: the same algorithms in two sweeps, side by side.

python -m domainbed.scripts.collect_results --input_dir DIR --compare OTHER
"""

from __future__ import annotations

import argparse
import math
from collections.abc import Iterator, Sequence
from pathlib import Path
from statistics import fmean

from domainbed.errors import UsageError
from domainbed.metrics import ACCURACY, Metric
from domainbed.records.query import Q
from domainbed.results.accuracies import compute_accuracies
from domainbed.results.dataset_spellings import records_with_one_spelling, spellings_of
from domainbed.results.loading import load_sweep
from domainbed.results.printing import print_paragraphs, print_section_table
from domainbed.results.report import ReportContext
from domainbed_gs.report.paired import selection_name
from domainbed_gs.report.paired_tables import NOTHING, UNBOUNDED, Table, p_text, points
from domainbed_gs.report.statistics import ALPHA, pairs_needed
from domainbed_gs.report.sweep_pairs import Sweep, SweepCell, compare_sweeps, different_settings, sweep_of


class CompareSection:
    """`--compare`; implements `domainbed.results.report.ReportSection`. `title` is its heading on a page."""

    title = "Beside another sweep"

    def add_arguments(self, parser: argparse.ArgumentParser) -> None:
        """Add the flag of this section."""
        group = parser.add_argument_group("another sweep (domainbed_gs)")
        group.add_argument(
            "--compare",
            type=Path,
            metavar="OTHER",
            help="compare the algorithms with the same ones in another sweep directory",
        )

    def wanted(self, args: argparse.Namespace) -> bool:
        """Whether another sweep is named."""
        return args.compare is not None

    def write(self, context: ReportContext) -> None:
        """Print a table for each dataset, the meaning of its numbers, and how the sweeps differ.

        Raises:
            UsageError: the other sweep does not exist, or no algorithm has results in both on a target.
            UnknownName: --paired_selection is unknown.
            RunError: the other sweep has no records.
        """
        args = context.args
        method = context.method(selection_name(context))
        # Set by collect_results, of which every section has its flags alone.
        finished_only, mix_data = (bool(getattr(args, name, False)) for name in ("finished_only", "mix_data"))
        records = load_sweep(args.compare, finished_only=finished_only, mix_data=mix_data).records
        spellings = spellings_of([*context.records, *records])
        own, records = (Q(records_with_one_spelling(each, spellings)) for each in (context.records, records))
        this, other = (
            sweep_of(each, compute_accuracies(each, method, context.over_targets)) for each in (own, records)
        )
        metric = method.metric
        cells = compare_sweeps(this, other)
        if not cells:
            raise UsageError(
                f"--compare {args.compare}: no algorithm has results in both sweeps on the same target"
            )
        if context.format == "csv":
            table = _csv_table(cells, metric)
            print_section_table("Two sweeps side by side", table.columns, table.rows, "csv")
        else:
            for dataset in dict.fromkeys(cell.dataset for cell in cells):
                table = _table([cell for cell in cells if cell.dataset == dataset], metric)
                what = "" if metric is ACCURACY else f", {metric.title}"
                unit = f" ({metric.unit})" if metric.unit else ""
                title = f"Dataset: {dataset}{what}, two sweeps side by side{unit}"
                print_section_table(title, table.columns, table.rows, context.format)
        in_unit = f", in {metric.unit}" if metric.unit else ""
        paragraphs = [
            f"Model selection: {method.name}.",
            f"This: mean {metric.title} in {context.input_dir}{in_unit}. Other: that in {args.compare}.",
            *_describe(cells, metric),
            *_notes(cells, this, other, different_settings(own, records)),
        ]
        print_paragraphs(paragraphs, context.format)


SECTION = CompareSection()


def _table(cells: Sequence[SweepCell], metric: Metric) -> Table:
    columns = [
        *("Target", "Algorithm", "This", "Other", "Difference", "95 % interval", "p", "Holm p", "Trials")
    ]
    return Table(columns, [_row(cell, metric) for cell in cells])


def _row(cell: SweepCell, metric: Metric) -> list[str]:
    star = " *" if cell.holm_p is not None and cell.holm_p < ALPHA else ""
    return [
        cell.target,
        cell.algorithm,
        metric.text(fmean(cell.this), 2),
        metric.text(fmean(cell.other), 2),
        points(metric.scale * cell.difference, metric),
        _interval(cell, metric),
        p_text(cell.p),
        p_text(cell.holm_p) + star,
        _trials(cell),
    ]


def _interval(cell: SweepCell, metric: Metric) -> str:
    if cell.interval is None:
        return NOTHING
    low, high = (
        points(metric.scale * end, metric) if math.isfinite(end) else UNBOUNDED for end in cell.interval
    )
    return f"[{low}, {high}]"


def _trials(cell: SweepCell) -> str:
    return f"{len(cell.this)} pairs" if cell.paired else f"{len(cell.this)} and {len(cell.other)}"


def _csv_table(cells: Sequence[SweepCell], metric: Metric) -> Table:
    """All numbers at full precision; missing values and infinite ends are empty."""
    percent, points = ("_percent", "_points") if metric.unit == "%" else ("", "")
    columns = [
        *("dataset", "target", "algorithm", f"this{percent}", f"other{percent}", f"difference{points}"),
        *(f"low{points}", f"high{points}", "p", "holm_p", "this_trials", "other_trials", "paired"),
    ]
    rows = []
    for cell in cells:
        ends = cell.interval or (math.inf, math.inf)
        values = [
            *(metric.scale * each for each in (fmean(cell.this), fmean(cell.other), cell.difference)),
            *(metric.scale * end if math.isfinite(end) else None for end in ends),
            *(cell.p, cell.holm_p, len(cell.this), len(cell.other), cell.paired),
        ]
        texts = ["" if value is None else str(value) for value in values]
        rows.append([cell.dataset, cell.target, cell.algorithm, *texts])
    return Table(columns, rows)


def _describe(cells: Sequence[SweepCell], metric: Metric) -> list[str]:
    """Meaning of the numbers."""
    better = "" if metric.larger_is_better else " Lower is better."
    lines = [f"Difference: mean of this sweep minus mean of the other one, in {metric.points}.{better}"]
    if any(cell.paired for cell in cells):
        lines.append(
            "Pairs: trials with the same seed and splits in both sweeps. Their p is that of the two-sided "
            "exact signed-rank test, and the interval is the exact one of the shift that it is about."
        )
    if not all(cell.paired for cell in cells):
        lines.append(
            "Trials such as 5 and 6: unpaired, since no trial seed, or not the samples, match. Their p and "
            "interval are those of Welch's test of two means."
        )
    lines.append(
        "Holm p: corrected for all averages over targets, or for all single targets. A star marks a Holm p < "
        f"{ALPHA}."
    )
    return lines


def _notes(cells: Sequence[SweepCell], this: Sweep, other: Sweep, settings: Sequence[str]) -> list[str]:
    """What is not compared, and how the settings of the two sweeps differ."""
    ours, theirs = (
        {key[1] for key in sweep.accuracies.by_target if sweep.trials(key)} for sweep in (this, other)
    )
    notes = [
        f"Note: only in {name} sweep: {', '.join(sorted(algorithms))}."
        for name, algorithms in (("this", ours - theirs), ("the other", theirs - ours))
        if algorithms
    ]
    notes += _missing_targets(cells, this, other)
    notes += _too_few_pairs([cell for cell in cells if cell.averaged], "averages")
    notes += _too_few_pairs([cell for cell in cells if not cell.averaged], "single targets")
    if settings:
        notes.append(f"Note: the settings differ: {'; '.join(settings)}.")
    return notes


def _missing_targets(cells: Sequence[SweepCell], this: Sweep, other: Sweep) -> Iterator[str]:
    """A sentence on each compared algorithm with targets that only one of the sweeps has."""
    compared = {(cell.dataset, cell.algorithm) for cell in cells}
    averaged = {(cell.dataset, cell.algorithm): cell.target for cell in cells if cell.averaged}
    for dataset in this.accuracies.datasets:
        for algorithm in this.accuracies.algorithms:
            lacking = [
                environment
                for target, environment in enumerate(dataset.targets)
                if bool(this.trials((dataset.name, algorithm, target)))
                != bool(other.trials((dataset.name, algorithm, target)))
            ]
            if lacking and (dataset.name, algorithm) in compared:
                average = averaged.get((dataset.name, algorithm))
                effect = f", which {average} leaves out" if average else ""
                yield f"Note: {dataset.name}, {algorithm}: only one sweep has {', '.join(lacking)}{effect}."


def _too_few_pairs(family: Sequence[SweepCell], name: str) -> list[str]:
    """A sentence if all cells of a family are paired, and too few trials allow no Holm p below `ALPHA`."""
    needed = pairs_needed(len(family))
    if not family or not all(cell.paired and len(cell.this) < needed for cell in family):
        return []
    tests = "1 test" if len(family) == 1 else f"{len(family)} tests"
    return [
        f"Note: with so few pairs no Holm p of the {name} ({tests}) can be below {ALPHA}; at least {needed} "
        "pairs are needed."
    ]

"""Report section `against`: our accuracies beside published ones, and the difference in standard errors.

python -m domainbed.scripts.collect_results --input_dir DIR --against iccv2021
"""

from __future__ import annotations

import argparse
import json
import math
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from statistics import fmean, stdev

from domainbed.errors import UsageError
from domainbed.hparams_registry import options
from domainbed.model_selection import METHODS
from domainbed.records.query import Q
from domainbed.records.results_file import Record
from domainbed.results.accuracies import Accuracies, ShownDataset, compute_accuracies
from domainbed.results.printing import print_paragraphs, print_section_table
from domainbed.results.report import ReportContext
from domainbed.training.config import SETTINGS
from domainbed_gs.report.comparison import AVERAGE
from domainbed_gs.report.paired import selection_name
from domainbed_gs.report.paired_tables import NOTHING, Table
from domainbed_gs.report.published import Published, PublishedCell, load, plain


class AgainstSection:
    """`--against`; implements `domainbed.results.report.ReportSection`. `title` is its heading on a page."""

    title = "Beside published numbers"

    def add_arguments(self, parser: argparse.ArgumentParser) -> None:
        """Add the flag of this section."""
        group = parser.add_argument_group("published numbers (domainbed_gs)")
        group.add_argument(
            "--against",
            metavar="NAME",
            help="iccv2021 (the paper's Table 1), colored_mnist (Fishr, SAND-mask), or a CSV file "
            "with columns dataset,target,method,mean,std",
        )

    def wanted(self, args: argparse.Namespace) -> bool:
        """Whether a published table is named."""
        return args.against is not None

    def write(self, context: ReportContext) -> None:
        """Print a table for each dataset, the meaning of its numbers, and differences in settings.

        Raises:
            UsageError: the published table cannot be read, or has no cell of this sweep, or the report is
                of another metric than accuracy.
            UnknownName: --paired_selection is unknown.
        """
        selection = selection_name(context)
        if context.metric != "acc":
            raise UsageError(
                f"--against compares with published accuracies; leave out --metric {context.metric}"
            )
        published = load(context.args.against, selection)
        method = METHODS[selection]
        cells = match_cells(compute_accuracies(context.records, method), published)
        if context.format == "csv":
            table = _csv_table(cells)
            print_section_table("Beside published numbers", table.columns, table.rows, "csv")
        else:
            for dataset in dict.fromkeys(cell.dataset for cell in cells):
                table = _table([cell for cell in cells if cell.dataset == dataset])
                title = f"Dataset: {dataset}, beside published numbers (%)"
                print_section_table(title, table.columns, table.rows, context.format)
        differences = different_settings(context.records, cells, published)
        if published.selection and selection not in published.selection:
            differences.insert(0, f"selection is {selection}, published with {published.selection[0]}")
        print_paragraphs(_describe(cells, published, method.name, differences), context.format)


SECTION = AgainstSection()


@dataclass(frozen=True)
class MatchedCell:
    """A method on a target, by us and as published. Numbers are in % or percentage points.

    Attributes:
        dataset: our name of the dataset.
        target: our name of the target environment.
        algorithm: our name of the method.
        accuracies: accuracies of our trials, at least one.
        published: the published accuracy.
        published_trials: number of trials behind it; None if unknown.
    """

    dataset: str
    target: str
    algorithm: str
    accuracies: tuple[float, ...]
    published: PublishedCell
    published_trials: int | None

    @property
    def mean(self) -> float:
        """Our mean over trials."""
        return fmean(self.accuracies)

    @property
    def std(self) -> float | None:
        """Our standard deviation over trials (ddof=1); None with fewer than two trials."""
        return stdev(self.accuracies) if len(self.accuracies) > 1 else None

    @property
    def difference(self) -> float:
        """Our mean minus the published one."""
        return self.mean - self.published.mean

    @property
    def standard_errors(self) -> float | None:
        """Difference divided by the standard error of a difference of two means; None if unknown or zero."""
        if self.std is None or self.published.std is None or self.published_trials is None:
            return None
        error = math.sqrt(self.std**2 / len(self.accuracies) + self.published.std**2 / self.published_trials)
        return self.difference / error if error > 0 else None


def match_cells(accuracies: Accuracies, published: Published) -> list[MatchedCell]:
    """Match our results with published ones.

    A target matches if its name does, or if the published target is a single letter and only one environment
    of the dataset begins with that letter.

    Returns: the cells that both sides have; averages over targets come last in each dataset.

    Raises: UsageError if there are none.
    """
    found = [
        cell for columns in accuracies.datasets for cell in _match_dataset(columns, accuracies, published)
    ]
    if not found:
        datasets = sorted({dataset for dataset, _, _ in published.cells})
        methods = sorted({method for _, _, method in published.cells})
        raise UsageError(
            "--against has no accuracy for any cell of this sweep; it has datasets: "
            f"{', '.join(datasets)}; methods: {', '.join(methods)}"
        )
    return found


def _match_dataset(
    columns: ShownDataset, accuracies: Accuracies, published: Published
) -> Iterator[MatchedCell]:
    dataset = plain(Path(columns.name).name)
    targets = {target for of_dataset, target, _ in published.cells if of_dataset == dataset}
    rows: list[tuple[str, str, int | None]] = [
        (environment, _published_target(environment, columns.targets, targets), index)
        for index, environment in enumerate(columns.targets)
    ]
    for environment, target, index in [*rows, (AVERAGE, plain(AVERAGE), None)]:
        for algorithm in accuracies.algorithms:
            cell = published.cells.get((dataset, target, plain(algorithm)))
            if index is None:
                shares = _averages(accuracies, columns, algorithm)
            else:
                shares = accuracies.trials(columns.name, algorithm, index)
            ours = tuple(100 * share for share in shares if not math.isnan(share))
            if cell is not None and ours:
                yield MatchedCell(
                    dataset=columns.name,
                    target=environment,
                    algorithm=algorithm,
                    accuracies=ours,
                    published=cell,
                    published_trials=published.trials,
                )


def _averages(accuracies: Accuracies, columns: ShownDataset, algorithm: str) -> list[float]:
    """Mean over all targets, for each trial that has all of them."""
    trials = accuracies.by_trial.get((columns.name, algorithm), {}).values()
    return [fmean(shares) for shares in trials if len(shares) == len(columns.targets)]


def _published_target(environment: str, environments: Sequence[str], published: set[str]) -> str:
    """Published name of an environment, or its own plain name if no published target matches."""
    own, initial = plain(environment), plain(environment)[:1]
    unique = sum(plain(each)[:1] == initial for each in environments) == 1
    return initial if own not in published and unique and initial in published else own


def different_settings(records: Q[Record], cells: Sequence[MatchedCell], published: Published) -> list[str]:
    """Clauses that say how the runs behind `cells` differ from the published ones, one for each setting."""
    shown = {(cell.dataset, cell.algorithm) for cell in cells}
    runs: dict[tuple[object, ...], Record] = {}
    for record in records:
        args = record["args"]
        method = (args["dataset"], args["algorithm"])
        if method in shown:
            runs[*method, *args["test_envs"], args["trial_seed"], args["hparams_seed"]] = record
    counts: Counter[tuple[str, str, str]] = Counter()
    # Of settings that are newer than a record, and of options that a run does not set.
    defaults: dict[str, object] = {name: each.value_before for name, each in SETTINGS.items()}
    defaults |= {name: each.default for name, each in options().items()}
    for record in runs.values():
        settings = ((record["args"], published.args), (record.get("hparams", {}), published.hparams))
        for ours, theirs in settings:
            for name, value in theirs.items():
                found = ours.get(name, defaults.get(name))
                if found != value:
                    counts[name, json.dumps(found), json.dumps(value)] += 1
    clauses = [
        f"{name} is {ours}, published with {theirs} ({number} of {len(runs)} runs)"
        for (name, ours, theirs), number in counts.items()
    ]
    tried = sorted(Counter(run[:-1] for run in runs).values())
    if published.settings is not None and runs and {*tried} != {published.settings}:
        found = f"{tried[0]}" if tried[0] == tried[-1] else f"{tried[0]} to {tried[-1]}"
        wanted = published.settings
        clauses.append(f"settings of hyper-parameters tried: {found}, published with {wanted}")
    return clauses


def _table(cells: Sequence[MatchedCell]) -> Table:
    columns = ["Target", "Method", "Ours", "Trials", "Published", "Difference", "In standard errors"]
    return Table(columns, [_row(cell) for cell in cells])


def _row(cell: MatchedCell) -> list[str]:
    errors = cell.standard_errors
    return [
        cell.target,
        cell.algorithm,
        _mean_and_std(cell.mean, cell.std),
        str(len(cell.accuracies)),
        _mean_and_std(cell.published.mean, cell.published.std) + "?" * bool(cell.published.note),
        f"{cell.difference:+.2f}",
        NOTHING if errors is None else f"{errors:+.1f}",
    ]


def _csv_table(cells: Sequence[MatchedCell]) -> Table:
    """All numbers at full precision; missing values are empty."""
    rows = [_csv_row(cell) for cell in cells]
    texts = [["" if value is None else str(value) for value in row.values()] for row in rows]
    return Table(list(rows[0]), texts)


def _csv_row(cell: MatchedCell) -> dict[str, object]:
    return {
        "dataset": cell.dataset,
        "target": cell.target,
        "algorithm": cell.algorithm,
        "mean_percent": cell.mean,
        "std_percent": cell.std,
        "trials": len(cell.accuracies),
        "published_mean_percent": cell.published.mean,
        "published_std_percent": cell.published.std,
        "difference_points": cell.difference,
        "difference_in_standard_errors": cell.standard_errors,
        "note": cell.published.note,
    }


def _mean_and_std(mean: float, std: float | None) -> str:
    return f"{mean:.2f} ({NOTHING if std is None else f'{std:.2f}'})"


def _describe(
    cells: Sequence[MatchedCell], published: Published, selection: str, differences: list[str]
) -> list[str]:
    """Meaning of the numbers, then differences in settings and remarks about single cells."""
    trials = "an unknown number of trials" if published.trials is None else f"{published.trials} trials"
    lines = [
        f"Published: {published.title}; mean (standard deviation) over {trials}, in %.",
        f"Ours: mean (standard deviation, ddof=1) over trials, in %. Model selection: {selection}.",
        "Difference: ours - published, in percentage points, and divided by the standard error of the "
        "difference of the two means.",
    ]
    if differences:
        lines.append(f"Note: the settings differ from the published ones: {'; '.join(differences)}.")
    elif published.args or published.hparams:
        lines.append("All recorded settings equal the published ones.")
    remarks = dict.fromkeys(
        (f"{cell.dataset}, {cell.target}, {cell.algorithm}", cell.published.note) for cell in cells
    )
    return lines + [f"?: {where}: {remark}." for where, remark in remarks if remark]

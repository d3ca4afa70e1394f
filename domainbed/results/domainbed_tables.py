"""The DomainBed tables: what they contain, and how each format prints them to `sys.stdout`.

Each dataset has a table of algorithms by target environments; with sets of targets, one by sets, and one for
each set. A table of averages by datasets follows.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass

from domainbed.console import fitted
from domainbed.escaping import csv_line, latex_escape, markdown_escape, visible
from domainbed.metrics import ACCURACY, Metric
from domainbed.results.accuracies import Accuracies
from domainbed.results.averages import Average, average_of
from domainbed.results.printing import print_footer, print_lines, wrapped_footer
from domainbed.results.table_content import (
    ERROR,
    LATEX,
    RENDERED,
    TEXT,
    DomainBedTable,
    Style,
    marked,
    mean_cells,
    target_cells,
)
from domainbed.results.tables import format_mean, latex_width, print_table, render_table
from domainbed.results.target_set_tables import overview_of_sets, summaries, tables_of_sets


def domainbed_tables(accuracies: Accuracies, style: Style) -> Iterator[DomainBedTable]:
    """The table of each dataset, then the table of averages."""
    metric, worst = accuracies.metric, accuracies.over_targets == "worst"
    selection = f"model selection method: {accuracies.method}"
    if metric is not ACCURACY:
        selection = f"{metric.heading}, {selection}"
    about = f"{accuracies.about} in {metric.unit}" if metric.unit else accuracies.about
    over_targets = "the worst target of each trial" if worst else "averaged over the targets in each trial"
    averages = {
        (dataset.name, algorithm): average_of(accuracies, dataset, algorithm)
        for dataset in accuracies.datasets
        for algorithm in accuracies.algorithms
    }
    for dataset in accuracies.datasets:
        own = [averages[dataset.name, algorithm] for algorithm in accuracies.algorithms]
        table = DomainBedTable(
            subject=dataset.name,
            title=f"Dataset: {dataset.name}, {selection}",
            columns=["Algorithm", *dataset.targets, accuracies.summary_label],
            rows=accuracies.algorithms,
            cells=[target_cells(accuracies, average, style) for average in own],
            colwidth=20,
            footer=f"{about}, {ERROR}.",
            incomplete=_incomplete(
                [average for average in own if not average.has_empty_target], style, worst
            ),
        )
        if dataset.target_sets:
            yield overview_of_sets(table, accuracies, own, style)
            yield from tables_of_sets(table, accuracies, own, style, selection)
        else:
            yield table
    by_algorithm = [
        [averages[dataset.name, algorithm] for dataset in accuracies.datasets]
        for algorithm in accuracies.algorithms
    ]
    yield DomainBedTable(
        subject="Averages",
        title=f"{'Worst targets' if worst else 'Averages'}, {selection}",
        columns=["Algorithm", *(dataset.name for dataset in accuracies.datasets), "Avg"],
        rows=accuracies.algorithms,
        cells=[_average_cells(row, style) for row in by_algorithm],
        colwidth=25,
        footer=f"{about}, {over_targets}, {ERROR}.",
        incomplete=_incomplete(list(averages.values()), style, worst),
        absent=_absent([row[0] for row in zip(*by_algorithm, strict=True)]),
    )


def _average_cells(averages: Sequence[Average], style: Style) -> list[str]:
    """Cells of a row in the table of averages.

    Averages are marked if trials lack targets. Other styles than upstream's also mark those for which no
    algorithm has some target of the dataset.
    """
    columns = [average.upstream if style.upstream else average.complete for average in averages]
    *texts, mean = mean_cells(columns, style.latex, averages[0].metric if averages else ACCURACY)
    if not style.upstream:
        texts = [average.cell(style.latex) for average in averages]
    partial = [
        bool(average.lacking or (average.absent and average.upstream and not style.upstream))
        for average in averages
    ]
    pairs = zip([*texts, mean], [*partial, any(partial)], strict=True)
    return [marked(text, style) if lacks else text for text, lacks in pairs]


def _incomplete(averages: Sequence[Average], style: Style, worst: bool) -> str:
    """What the marked ones of `averages` lack; empty if all are complete."""
    sentences = [average.sentence() for average in averages if average.lacking]
    if not sentences:
        return ""
    what = "Worst targets" if worst else "Averages"
    over = (
        f"{what} over the targets that each trial has"
        if style.upstream
        else f"{what} over the trials that have all targets of the table"
    )
    return f"{over}. {'. '.join(sentences)}."


def _absent(averages: Sequence[Average]) -> str:
    """Which targets no algorithm has, given an average of each dataset; empty if there are none."""
    listed = [
        f"{average.dataset.name} without {', '.join(average.dataset.targets[i] for i in average.absent)}"
        for average in averages
        if 0 < len(average.absent) < len(average.dataset.targets)
    ]
    return f"Averaged over the targets with results of some algorithm: {'; '.join(listed)}." if listed else ""


@dataclass(frozen=True)
class ReportFormat:
    """How a report is printed in one format.

    Attributes:
        suffix: suffix of the report's file.
        print_head: prints what comes first, given the number of records and what the tables show.
        print_tables: prints the tables of one selection method, given its short name and its accuracies.
        print_end: prints what comes last.
        print_heading: prints the heading of a part, with the runs that have one value of a setting.
    """

    suffix: str
    print_head: Callable[[int, Metric], None]
    print_tables: Callable[[str, Accuracies], None]
    print_end: Callable[[], None]
    print_heading: Callable[[str], None] = lambda text: print_lines("", f"======== {visible(text)} ========")


def print_upstream_tables(accuracies: Accuracies, latex: bool) -> None:
    """Print the tables of one selection method as upstream does, in text or LaTeX.

    In LaTeX, columns are widened where `print_table` would cut off the closing brace of a label, or a cell.
    Averages with missing targets are marked. Footers follow each table.
    """
    for table in domainbed_tables(accuracies, LATEX if latex else TEXT):
        width = table.colwidth
        if latex:
            print_lines("", f"\\subsubsection{{{latex_escape(table.subject)}}}")
            longest = max((len(cell) for row in table.cells for cell in row), default=0)
            width = max(longest, latex_width(width, table.rows, table.columns))
        rows, columns = table.rows, table.columns
        if not latex:
            rows, columns = fitted(rows, width), fitted(columns, width)
        print_table(table.cells, table.title, rows, columns, width, latex)
        _print_footers(table, "latex" if latex else "text")


def print_rendered_tables(accuracies: Accuracies, format: str) -> None:
    """Print the tables of one selection method as "markdown" or "html"."""
    for table in domainbed_tables(accuracies, RENDERED):
        rows = [[label, *cells] for label, cells in zip(table.rows, table.cells, strict=True)]
        print_lines(render_table(table.title, table.columns, rows, format))
        _print_footers(table, format)


def _print_footers(table: DomainBedTable, format: str) -> None:
    """Print the sentences under a table. In text, that on marked averages goes to stdout like the marks."""
    if format == "text" and table.incomplete:
        print_lines(*wrapped_footer(f"{TEXT.mark} {table.incomplete}"))
    print_footer(table.footer, format)
    if format == "text":
        missing = [table.absent]
    else:
        missing = [f"† {sentence}" for sentence in (table.incomplete, table.absent) if sentence]
    for sentence in filter(None, missing):
        print_footer(sentence, format)


def print_csv_rows(short_name: str, accuracies: Accuracies) -> None:
    """Print one line for each cell, in percent at full precision. Mean and stderr are empty where n is 0.

    Another metric is in its own unit, and named in a last column. Averages are those over complete trials.
    `missing` has the targets that trials lack, or the reason why a cell has no result.
    """
    for dataset, algorithm, environment, trials, missing in tidy_rows(accuracies):
        mean, err, _ = format_mean(trials, latex=False, metric=accuracies.metric)
        row = [short_name, dataset, algorithm, environment, mean, err, len(trials), missing]
        row += _csv_metric(accuracies.metric.described, accuracies.metric)
        print_lines(csv_line(row).removesuffix("\n"))
    tables = list(domainbed_tables(accuracies, RENDERED))
    footers = [text for table in tables for text in (table.footer, table.incomplete, table.absent)]
    for footer in dict.fromkeys(filter(None, footers)):
        print_footer(f"{short_name}: {footer}", "csv")


def tidy_rows(accuracies: Accuracies) -> Iterator[tuple[str, str, str, list[float], str]]:
    """(dataset, algorithm, environment, accuracies of the trials, what is missing) of each cell.

    Environment "Avg", or "Worst", is a cell of the table of averages, which follows those that sum up sets
    of targets.
    """
    for dataset in accuracies.datasets:
        for algorithm in accuracies.algorithms:
            for target, environment in enumerate(dataset.targets):
                trials = accuracies.trials(dataset.name, algorithm, target)
                reasons = [] if trials else accuracies.reasons(dataset.name, algorithm, target)
                yield dataset.name, algorithm, environment, trials, "; ".join(map(str, reasons))
            average = average_of(accuracies, dataset, algorithm)
            missing = "; ".join(average.missing())
            for label, trials in summaries(accuracies, average).items():
                yield dataset.name, algorithm, label, trials, "" if trials else missing
            if not (dataset.target_sets and accuracies.over_targets == "worst"):  # not twice
                yield dataset.name, algorithm, accuracies.summary_label, average.complete, missing


def _print_csv_head(records: int, metric: Metric) -> None:
    columns = ["selection", "dataset", "algorithm", "environment", "mean", "stderr", "n", "missing"]
    print_lines(csv_line([*columns, *_csv_metric("metric", metric)]).removesuffix("\n"))


def _csv_metric(cell: str, metric: Metric) -> list[str]:
    """The last cell of a line in CSV, which only tables of another metric than accuracy have."""
    return [] if metric is ACCURACY else [cell]


def _print_latex_head(records: int, metric: Metric) -> None:
    print_lines(
        "\\documentclass{article}",
        "\\usepackage{booktabs}",
        "\\usepackage{adjustbox}",
        "\\begin{document}",
        "\\section{Full DomainBed results}",
        f"% Total records: {records}",
    )


def _print_latex_tables(short_name: str, accuracies: Accuracies) -> None:
    print_lines("", f"\\subsection{{Model selection: {latex_escape(accuracies.method)}}}")
    print_upstream_tables(accuracies, latex=True)


FORMATS = {
    "text": ReportFormat(
        suffix=".txt",
        print_head=lambda records, metric: print_lines(f"Total records: {records}"),
        print_tables=lambda short_name, accuracies: print_upstream_tables(accuracies, latex=False),
        print_end=lambda: None,
    ),
    "latex": ReportFormat(
        suffix=".tex",
        print_head=_print_latex_head,
        print_tables=_print_latex_tables,
        print_end=lambda: print_lines("\\end{document}"),
        print_heading=lambda text: print_lines("", f"\\section{{{latex_escape(text)}}}"),
    ),
    "markdown": ReportFormat(
        suffix=".md",
        print_head=lambda records, metric: print_lines(f"Total records: {records}"),
        print_tables=lambda short_name, accuracies: print_rendered_tables(accuracies, "markdown"),
        print_end=lambda: None,
        print_heading=lambda text: print_lines("", f"## {markdown_escape(text)}"),
    ),
    "csv": ReportFormat(
        suffix=".csv",
        print_head=_print_csv_head,
        print_tables=print_csv_rows,
        print_end=lambda: None,
    ),
}
"""Formats of a report by name."""

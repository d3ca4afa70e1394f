"""The first screen of a page: the answer of the paired comparison, what limits it, and a forest plot.

Below it, for each dataset, stand the accuracies and the differences to the baseline (`overview_tables`).
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from importlib.resources import files

from domainbed.escaping import html_escape
from domainbed.metrics import ACCURACY, Metric
from domainbed.results.page.facts import Fact, counted, print_facts, runs_done
from domainbed.results.printing import FigureData, print_figure_data, print_lines
from domainbed.results.report import ReportContext
from domainbed_gs.report.cells import Cell, Comparison, Interval, PairedReport, Verdict
from domainbed_gs.report.forest_plot import (
    UNBOUNDED,
    Axis,
    ForestRow,
    axis_for,
    axis_labels,
    interval_text,
    number,
    strip,
)
from domainbed_gs.report.overview_tables import breakable, print_overview
from domainbed_gs.report.paired_tables import NOTHING, span
from domainbed_gs.report.verdicts import answer, remarks

SHAPES = {Verdict.BETTER: "▲", Verdict.WORSE: "▼", Verdict.EQUIVALENT: "=", Verdict.UNDECIDED: "?"}
"""The shape of each verdict. Its colour is that of the CSS class with the verdict's name."""

LONG = 110
"""Characters of an answer from which on it is set smaller."""


def style() -> str:
    """CSS of the first screen."""
    return (files(__package__) / "assets" / "first_screen.css").read_text(encoding="utf-8")


def print_first_screen(report: PairedReport, context: ReportContext, selection: str) -> None:
    """Print the HTML of the first screen.

    Args:
        report: the paired comparison.
        context: the sweep.
        selection: the selection method, in words.
    """
    metric = "" if report.metric is ACCURACY else f" · {report.metric.described}"
    datasets, sentence = " · ".join(report.datasets), answer(report)
    size = ' class="long"' if len(sentence) > LONG else ""
    print_lines(
        f'<p class="kicker">{html_escape(f"{datasets}{metric} · selection: {selection}")}</p>',
        f"<h1{size}>{html_escape(sentence)}</h1>",
    )
    print_facts(list(_facts(report, context)))
    if report.splits == "shared":
        print_lines(
            '<p class="limit">All trials share one split: claims hold for this split only</p>',
        )
    elif report.splits == "repeated":
        print_lines('<p class="limit">Trials share splits: claims hold for these splits only</p>')
    _print_forest(report)
    print_overview(report)


def _facts(report: PairedReport, context: ReportContext) -> Iterator[Fact]:
    yield runs_done(context)
    compared = [cell.comparison for cell in report.primary if cell.comparison]
    pairs = sorted({each.pairs for each in compared})
    most = pairs[-1] if pairs else 0
    few = f"{pairs[0]} to {most}" if len(pairs) > 1 else str(most)
    yield Fact(few, "paired trial" if most == 1 else "paired trials", limits=len(pairs) > 1)
    targets = {(cell.dataset, cell.target) for cell in report.cells if cell.target is not None}
    yield counted(len(targets), "held-out environment")
    if report.splits == "own":
        yield Fact("", "a split for each trial")
    elif report.splits == "unknown":
        yield Fact("", "unknown whether trials share a split", limits=True)
    yield from _detectable(report)


def _detectable(report: PairedReport) -> Iterator[Fact]:
    """The smallest differences that these trials would detect in 80 % of studies, over the methods."""
    found = [cell.smallest_detectable for cell in report.primary]
    smallest = [value for value in found if value is not None]
    if smallest:
        unit = report.metric.short_points
        words = unit if None not in found else f"{unit}, for some methods none"
        yield Fact(span(smallest, report.metric), words, before="detectable with 80 % power:")
    elif any(cell.trials_needed is not None for cell in report.primary):
        yield Fact("", "no difference is detectable with so few trials", limits=True)


def _print_forest(report: PairedReport) -> None:
    """Print the table with the forest plot, its legend, and the data of the plot."""
    rope = report.metric.scale * report.rope
    groups = {name: _rows(report, name) for name in report.datasets}
    axis = axis_for([row for rows in groups.values() for _, row in rows], rope)
    print_lines('<table class="forest" role="table" aria-label="Differences to the baseline">')
    print_lines(f'<thead role="rowgroup">{_head(report, axis)}</thead>')
    for dataset, rows in groups.items():
        print_lines('<tbody role="rowgroup">')
        if len(groups) > 1:
            print_lines(
                '<tr class="group" role="row"><th role="rowheader" scope="rowgroup" colspan="7">'
                f"{html_escape(dataset)}</th></tr>"
            )
        print_lines(*(_table_row(cell, row, axis, rope) for cell, row in rows), "</tbody>")
    print_lines("</table>", f'<p class="legend">{_legend(report)}</p>')
    _print_data(report)


def _rows(report: PairedReport, dataset: str) -> list[tuple[Cell, ForestRow]]:
    """(cell, row of the plot) of the primary family on one dataset, the best shift first."""
    metric = report.metric
    marks: dict[str, list[tuple[str, float]]] = {}
    for cell in report.secondary:
        if cell.dataset == dataset and cell.comparison and cell.comparison.pairs:
            mark = (cell.target_name, metric.scale * cell.comparison.shift)
            marks.setdefault(cell.algorithm, []).append(mark)
    own = [cell for cell in report.primary if cell.dataset == dataset]
    rows = [(cell, _forest_row(cell, marks.get(cell.algorithm, []), metric)) for cell in own]
    return sorted(
        rows, key=lambda pair: math.inf if pair[1].centre is None else -metric.sign * pair[1].centre
    )


def _forest_row(cell: Cell, marks: list[tuple[str, float]], metric: Metric) -> ForestRow:
    comparison = cell.comparison
    if comparison is None or not comparison.pairs:
        return ForestRow(cell.algorithm, None)
    return ForestRow(
        label=cell.algorithm,
        centre=metric.scale * comparison.shift,
        interval=_points(comparison.interval, metric),
        wide_interval=_points(comparison.simultaneous, metric),
        marks=tuple(marks),
        style=cell.verdict.value if cell.verdict else "",
        digits=1 + metric.extra_digits,
    )


def _points(interval: Interval | None, metric: Metric) -> Interval | None:
    return None if interval is None else (metric.scale * interval[0], metric.scale * interval[1])


def _head(report: PairedReport, axis: Axis) -> str:
    ends = (f"{report.baseline} better", "method better")
    labels = axis_labels(axis, *(ends if report.metric.larger_is_better else ends[::-1]))
    corrected = "p (Holm)" if report.correction == "holm" else "p"
    return "".join(
        [
            '<tr role="row">',
            _header("Method"),
            f'<th role="columnheader" scope="col" class="plot" data-sort="no" data-copy="no">{labels}</th>',
            _header("Shift", "shift number"),
            _header("Simultaneous 95\u00a0%\u00a0interval", "interval number"),
            _header(corrected.replace(" ", "\u00a0"), "p number"),
            _header("Better in\u00a0trials", "better-in number"),
            _header("Verdict"),
            "</tr>",
        ]
    )


def _header(text: str, style: str = "") -> str:
    kind = f' class="{style}"' if style else ""
    return f'<th role="columnheader" scope="col"{kind}>{html_escape(text)}</th>'


def _table_row(cell: Cell, row: ForestRow, axis: Axis, rope: float) -> str:
    comparison = cell.comparison
    better = comparison.probability_better if comparison else None
    return "".join(
        [
            f'<tr role="row"><th role="rowheader" scope="row">{breakable(cell.algorithm)}</th>',
            f'<td role="cell" class="plot">{strip(row, axis, rope)}</td>',
            _cell("shift number", NOTHING if row.centre is None else number(row.centre, row.digits)),
            _cell(
                "interval number",
                interval_text(row.wide_interval, row.digits) if row.wide_interval else NOTHING,
            ),
            _cell("p number", p_text(cell.holm_p)),
            _cell("better-in number", NOTHING if better is None else f"{100 * better:.0f} %"),
            f'<td role="cell" class="verdict">{_verdict(cell)}</td></tr>',
        ]
    )


def _cell(style: str, text: str) -> str:
    return f'<td role="cell" class="{style}">{html_escape(text)}</td>'


def p_text(p: float | None) -> str:
    """A p-value with two digits, "<.001" below that."""
    if p is None:
        return NOTHING
    return "<.001" if p < 0.001 else f"{p:.3f}" if p < 0.0995 else f"{p:.2f}"


def _verdict(cell: Cell) -> str:
    """The verdict as shape and word, in its colour; what is added to it is smaller."""
    if cell.verdict is None:
        return "no shared trials"
    word, more = cell.verdict.value, html_escape(remarks(cell).lstrip(",; "))
    shape = f'<span aria-hidden="true">{SHAPES[cell.verdict]}</span>'
    return f'<b class="{word}">{shape} {word}</b>' + (f" <small>{more}</small>" if more else "")


def _legend(report: PairedReport) -> str:
    over = (
        " averaged over held-out environments"
        if report.over_targets == "mean"
        else " on the worst held-out environment of each trial"
    )
    averaged = over if any(c.target is None for c in report.primary) else ""
    unbounded = any(cell.comparison and cell.comparison.simultaneous == UNBOUNDED for cell in report.primary)
    shapes = " · ".join(f"{shape}\u00a0{verdict.value}" for verdict, shape in SHAPES.items())
    sentences = [
        f"Dot and line: difference to {report.baseline}{averaged} (Hodges-Lehmann shift, in "
        f"{report.metric.points}), with its exact 95 % interval (thick) and the interval that holds for all "
        "methods at once (thin).",
        "Small marks: each environment." if averaged else "",
        f"Shaded: ±{report.rope_text}, taken as no practical difference." if report.rope else "",
        "An arrow points to what lies beyond the axis.",
        "Dashed: so few trials do not bound the difference." if unbounded else "",
        shapes,
    ]
    return html_escape(" ".join(sentence for sentence in sentences if sentence))


def _print_data(report: PairedReport) -> None:
    """Print the numbers that the plot shows as a folded table."""
    several = len(report.datasets) > 1
    columns = [
        "Method", "Environment", "Shift", "95 % low", "95 % high", "Simultaneous low", "Simultaneous high",
        "Better in trials (%)", *(["Dataset"] if several else []),
    ]  # fmt: skip
    cells = [*report.primary, *report.secondary]
    rows = [
        [
            *(cell.algorithm, cell.target_name, *_numbers(cell.comparison, report.metric)),
            *([cell.dataset] if several else []),
        ]
        for cell in cells
        if cell.comparison is not None and cell.comparison.pairs
    ]
    title = f"differences to the baseline ({report.metric.points})"
    print_figure_data(title, FigureData(columns, rows))


def _numbers(comparison: Comparison, metric: Metric) -> list[str]:
    ends = [*(comparison.interval or (None, None)), *(comparison.simultaneous or (None, None))]
    better = comparison.probability_better
    share = NOTHING if better is None else f"{100 * better:.1f}"
    return [_data(comparison.shift, metric), *(_data(end, metric) for end in ends), share]


def _data(value: float | None, metric: Metric) -> str:
    if value is None:
        return NOTHING
    digits = 3 + metric.extra_digits
    return "unbounded" if math.isinf(value) else f"{metric.scale * value + 0.0:+.{digits}f}"

"""Accuracies of all methods, and their differences to the baseline as a matrix of shades, side by side."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence

from domainbed.escaping import html_escape
from domainbed.metrics import Metric
from domainbed.results.printing import print_lines
from domainbed.results.tables import format_mean
from domainbed_gs.report.cells import Cell, PairedReport
from domainbed_gs.report.forest_plot import number

SHADES = (0.5, 1.0, 2.0, 4.0)
"""Differences at which the shade of a cell changes, in units of the rope."""

MOST_TARGETS = 5
"""Columns of accuracies with which two tables fit side by side on a desktop."""

By = Mapping[tuple[str, str], Cell]
"""(algorithm, name of the target) -> cell."""


def print_overview(report: PairedReport) -> None:
    """Print both tables of each dataset of `report`."""
    metric = report.metric
    unit = f" ({metric.unit})" if metric.unit else ""
    for dataset in report.datasets:
        of = f": {dataset}" if len(report.datasets) > 1 else ""
        cells = report.of(dataset)
        most = MOST_TARGETS if not metric.extra_digits else MOST_TARGETS - 1
        wide = len({cell.target_name for cell in cells}) > most
        print_lines(
            f'<div class="side-by-side{" stacked" if wide else ""}">',
            _accuracies(cells, metric, f"{metric.capitalized} on the held-out environment{unit}{of}"),
            _differences(cells, report, f"Difference to {report.baseline} ({metric.short_points}){of}"),
            "</div>",
        )


def _accuracies(cells: Sequence[Cell], metric: Metric, title: str) -> str:
    """Mean and standard error of each method on each target, the best in bold, the best average first."""
    by, targets, methods = _grid(cells)
    order = sorted(methods, key=lambda method: -_quality(by, method, targets[-1], metric))
    best = {target: max(_quality(by, method, target, metric) for method in methods) for target in targets}
    rows = []
    for method in order:
        is_best = [_quality(by, method, target, metric) == best[target] for target in targets]
        row = [by.get((method, target)) for target in targets]
        rows.append((method, [_accuracy(*each, metric) for each in zip(row, is_best, strict=True)]))
    note = "Mean ± standard error over trials. Bold: the best."
    return _table(title, targets, rows, note)


def _differences(cells: Sequence[Cell], report: PairedReport, title: str) -> str:
    """Mean difference of each method on each target, in order of the average; a star if it is significant."""
    by, targets, methods = _grid(cells)
    compared = [method for method in methods if method != report.baseline]
    order = sorted(compared, key=lambda method: -_gain(by, method, targets[-1]))
    averages = {cell.target_name for cell in cells if cell.target is None}
    shown = [target for target in targets if target not in averages]
    metric = report.metric
    unit = metric.scale * report.rope or 1.0
    rows = [
        (method, [_shaded(by.get((method, target)), metric, unit) for target in shown]) for method in order
    ]
    limits = ", ".join(f"{unit * shade:g}" for shade in SHADES)
    star = "p < 0.05 after Holm's correction" if report.correction == "holm" else "p < 0.05, uncorrected"
    note = f"Mean difference over shared trials. *: {star}. Shades change at {limits} {metric.short_points}."
    return _table(title, shown, rows, note)


def _grid(cells: Sequence[Cell]) -> tuple[By, list[str], list[str]]:
    """Cells of one dataset by method and target, its targets, and its methods."""
    by = {(cell.algorithm, cell.target_name): cell for cell in cells}
    targets = list(dict.fromkeys(cell.target_name for cell in cells))
    return by, targets, list(dict.fromkeys(cell.algorithm for cell in cells))


def _quality(by: By, method: str, target: str, metric: Metric) -> float:
    """The mean of a method on a target, or its negative where smaller is better."""
    cell = by.get((method, target))
    return -math.inf if cell is None or cell.mean is None else metric.sign * round(cell.mean, 12)


def _gain(by: By, method: str, target: str) -> float:
    cell = by.get((method, target))
    comparison = cell.comparison if cell else None
    return comparison.gain if comparison and comparison.pairs else -math.inf


def _accuracy(cell: Cell | None, is_best: bool, metric: Metric) -> str:
    if cell is None or cell.mean is None:
        return '<td class="number">-</td>'
    _, _, text = format_mean(cell.trials.values(), latex=False, metric=metric)
    mean, _, error = text.partition(" +/- ")
    shown = f"<b>{mean}</b>" if is_best else mean
    return f'<td class="number">{shown} <small>± {error}</small></td>'


def _shaded(cell: Cell | None, metric: Metric, unit: float) -> str:
    comparison = cell.comparison if cell else None
    if cell is None or comparison is None or not comparison.pairs:
        return '<td class="number">-</td>'
    points = metric.scale * comparison.difference
    level = sum(abs(points) >= unit * shade for shade in SHADES)
    shade = f" {'above' if comparison.gain > 0 else 'below'}-{level}" if level else ""
    text = number(points, 1 + metric.extra_digits)
    text = f"<b>{text}*</b>" if cell.significant else text
    return f'<td class="number shaded{shade}">{text}</td>'


def breakable(name: str) -> str:
    """The name of a method as HTML; a line may break after "/" and "_"."""
    return html_escape(name).replace("/", "/<wbr>").replace("_", "_<wbr>")


def _table(title: str, targets: Sequence[str], rows: Sequence[tuple[str, list[str]]], note: str) -> str:
    """A heading, a table of prepared cells, and a note."""
    about = html_escape(title)
    head = "".join(f'<th scope="col" class="number">{html_escape(target)}</th>' for target in targets)
    body = "\n".join(
        f'<tr><th scope="row">{breakable(method)}</th>{"".join(cells)}</tr>' for method, cells in rows
    )
    return (
        f"<div><h2>{about}</h2>\n"
        f'<div class="table plain" role="region" aria-label="{about}" tabindex="0"><table>\n'
        f'<thead><tr><th scope="col">Method</th>{head}</tr></thead>\n<tbody>\n{body}\n'
        "</tbody></table></div>\n"
        f'<p class="footer">{html_escape(note)}</p></div>'
    )

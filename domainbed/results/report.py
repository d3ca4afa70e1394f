"""The report on a sweep: the DomainBed tables, then the sections of plugins."""

from __future__ import annotations

import argparse
import contextlib
import csv
import io
import logging
import sys
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import NoReturn, Protocol, runtime_checkable

from domainbed.errors import UsageError, misspelt
from domainbed.escaping import csv_line
from domainbed.metrics import Metric, get_metric
from domainbed.model_selection import METHODS, SelectionMethod
from domainbed.records.query import Q
from domainbed.records.results_file import Record
from domainbed.registry import Registry
from domainbed.results.accuracies import Accuracies, compute_accuracies
from domainbed.results.domainbed_tables import FORMATS
from domainbed.results.ensembles import EnsembleTable, print_ensembles
from domainbed.results.launched_runs import LaunchedRuns
from domainbed.results.reported_metric import reporting
from domainbed.sweep.manifest import Manifest

_log = logging.getLogger(__name__)


@dataclass(frozen=True)
class ReportContext:
    """The sweep and the options that a section gets.

    Attributes:
        records: records of all runs.
        input_dir: the sweep directory.
        args: the options of all sections, as their `add_arguments` declared them.
        format: "text", "latex", "markdown", "csv", or "html" for a section of a page.
        manifest: the runs that were launched; None for a sweep without `sweep.json`.
        runs: the same runs, and any others with records; they explain why trials have no result.
        metric: name of the metric to report; see `domainbed.metrics.get_metric`.
        over_targets: how results on several targets become one number, one of `OVER_TARGETS`.
    """

    records: Q[Record]
    input_dir: Path
    args: argparse.Namespace
    format: str
    manifest: Manifest | None
    runs: LaunchedRuns = field(default_factory=LaunchedRuns)
    metric: str = "acc"
    over_targets: str = "mean"

    def method(self, selection: str) -> type[SelectionMethod]:
        """The selection method with this short name, which reports `metric`. Raises: UnknownName."""
        return reporting(METHODS[selection], self.metric)

    def accuracies(self, selection: str) -> Accuracies:
        """Results of the records by this selection method. Raises: UnknownName."""
        return compute_accuracies(self.records, self.method(selection), self.over_targets)


class ReportSection(Protocol):
    """A section of the report, below the DomainBed tables.

    Importing its module must be cheap: import torch, pandas, scipy and matplotlib in `write` only.
    """

    def add_arguments(self, parser: argparse.ArgumentParser) -> None:
        """Add the section's flags. None may make an abbreviation of upstream's flags ambiguous."""

    def wanted(self, args: argparse.Namespace) -> bool:
        """Whether the options ask for the section."""

    def write(self, context: ReportContext) -> None:
        """Print the section to the current `sys.stdout`. HTML has no heading, and starts at h3."""


@runtime_checkable
class PageSection(ReportSection, Protocol):
    """A section that a page (`--html`) includes by default.

    Attributes:
        title: its heading on the page.
    """

    title: str

    def belongs(self, context: ReportContext) -> bool:
        """Whether the sweep has results for the section to show."""


@runtime_checkable
class HeadlineSection(PageSection, Protocol):
    """A section that can also fill the first screen of a page: the answer that the results give.

    A page shows the headline of the first such section that belongs to it.
    """

    def headline_style(self) -> str:
        """CSS that the headline needs beyond that of the page."""

    def write_headline(self, context: ReportContext) -> None:
        """Print the headline as HTML to the current `sys.stdout`.

        It starts with h1, and goes on with h2. If it prints nothing, the page has another headline.
        """


SECTIONS: Registry[ReportSection] = Registry.of_module("Report section")


def sections() -> Iterator[tuple[str, ReportSection]]:
    """(name, section) of each registered section, in order.

    A section whose module cannot be imported is skipped with a warning in the log.
    """
    for name in SECTIONS:
        try:
            yield name, SECTIONS[name]
        except Exception as error:  # a broken plugin must not hide the tables
            _log.warning("report section %s is skipped: %s: %s", name, type(error).__name__, error)


class _SectionParser(argparse.ArgumentParser):
    """A parser of the sections' flags for function calls, whose errors are exceptions."""

    def __init__(self) -> None:
        super().__init__(allow_abbrev=False, add_help=False)
        for _, section in sections():
            section.add_arguments(self)

    def error(self, message: str) -> NoReturn:
        raise UsageError(message)


def default_section_args() -> argparse.Namespace:
    """The options of all sections at their defaults."""
    return _SectionParser().parse_args([])


def section_args(options: Mapping[str, object]) -> argparse.Namespace:
    """The options of all sections, with these values by name in place of defaults.

    Args:
        options: True for a flag that takes no value, a list for several values. False and None give no flag.

    Raises: UsageError for an unknown name or an invalid value.
    """
    parser = _SectionParser()
    known = vars(parser.parse_args([]))
    words = []
    for name, value in options.items():
        if name not in known:
            raise misspelt(f"no section of the report has an option {name}", name, known)
        if isinstance(value, list | tuple):
            words += [f"--{name}", *map(str, value)]
        elif value is True:
            words.append(f"--{name}")
        elif value is not None and value is not False:
            words.append(f"--{name}={value}")
    args, left = parser.parse_known_args(words)
    if left:
        raise UsageError(f"an option of the report takes one value, and got others too: {', '.join(left)}")
    return args


@dataclass(frozen=True)
class ReportPart:
    """The report on the runs with one value of a setting, or on all runs.

    Attributes:
        context: the runs, the format, and the options that choose sections.
        accuracies: accuracies by the short name of their selection method, in order.
        setting: name of the setting; empty for all runs.
        value: its value, as text.
        ensembles: ensembles of trials, if they are reported, by the short name of the selection method.
    """

    context: ReportContext
    accuracies: Mapping[str, Accuracies]
    setting: str = ""
    value: str = ""
    ensembles: Mapping[str, Sequence[EnsembleTable]] = field(default_factory=dict)

    @property
    def metric(self) -> Metric:
        """What the numbers are."""
        return get_metric(self.context.metric)


def print_report(parts: Sequence[ReportPart]) -> None:
    """Print the report to the current `sys.stdout`: all parts, one after the other, in one format."""
    report_format = FORMATS[parts[0].context.format]
    if parts[0].setting and parts[0].context.format == "csv":
        _print_csv_parts(parts)
        return
    report_format.print_head(sum(len(part.context.records) for part in parts), parts[0].metric)
    for part in parts:
        if part.setting:
            report_format.print_heading(f"{part.setting} = {part.value}")
        _print_part(part)
    report_format.print_end()


def _print_part(part: ReportPart) -> None:
    for short_name, results in part.accuracies.items():
        FORMATS[part.context.format].print_tables(short_name, results)
    for tables in part.ensembles.values():
        for table in tables:
            print_ensembles(table, part.context.format)
    for _, section in sections():
        if section.wanted(part.context.args):
            section.write(part.context)


def _print_csv_parts(parts: Sequence[ReportPart]) -> None:
    """Print the tables of each part with the setting as their last column. An empty line ends a table."""
    for i, part in enumerate(parts):
        printed = io.StringIO(newline="")
        with contextlib.redirect_stdout(printed):
            FORMATS["csv"].print_head(len(part.context.records), part.metric)
            _print_part(part)
        is_header = True
        for row in [*([[]] if i else []), *csv.reader(io.StringIO(printed.getvalue(), newline=""))]:
            sys.stdout.write(csv_line([*row, part.setting if is_header else part.value]) if row else "\n")
            is_header = not row

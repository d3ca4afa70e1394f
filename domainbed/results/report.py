"""The report on a sweep: the DomainBed tables, then the sections that plugins add."""

from __future__ import annotations

import argparse
import logging
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol, runtime_checkable

from domainbed.records.jsonl import Record
from domainbed.records.query import Q
from domainbed.registry import Registry
from domainbed.results.accuracies import Accuracies
from domainbed.results.documents import DOCUMENTS
from domainbed.sweep.manifest import Manifest

_log = logging.getLogger(__name__)


@dataclass(frozen=True)
class ReportContext:
    """What a section can write about.

    Attributes:
        records: records of all runs.
        input_dir: the sweep directory.
        args: the parsed command line, with the sections' own arguments; `typed` is the line itself.
        format: "text", "latex", "markdown", "csv", or "html" for a part of a page.
        manifest: what the sweep was asked to hold, if it says so.
    """

    records: Q[Record]
    input_dir: Path
    args: argparse.Namespace
    format: str
    manifest: Manifest | None


class ReportSection(Protocol):
    """A part of the report below the DomainBed tables.

    Importing its module must be cheap: no torch, pandas, scipy, matplotlib before `write`.
    """

    def add_arguments(self, parser: argparse.ArgumentParser) -> None:
        """Add the section's flags; none may make an abbreviation of upstream's ambiguous."""

    def wanted(self, args: argparse.Namespace) -> bool:
        """Whether the command line asks for the section."""

    def write(self, context: ReportContext) -> None:
        """Print the section to the current `sys.stdout`; in HTML without a heading, headings being h3."""


@runtime_checkable
class PageSection(ReportSection, Protocol):
    """A section that a page (`--html`) has unasked.

    Attributes:
        title: its heading there.
    """

    title: str

    def belongs(self, context: ReportContext) -> bool:
        """Whether the sweep has what the section is about."""


SECTIONS: Registry[ReportSection] = Registry("Report section")


def sections() -> Iterator[tuple[str, ReportSection]]:
    """Name and section, in order; one whose module fails to import is named in the log and skipped."""
    for name in SECTIONS:
        try:
            yield name, SECTIONS[name]
        except Exception as error:  # whatever a plugin's import raises, the tables are shown
            _log.warning("report section %s is skipped: %s: %s", name, type(error).__name__, error)


def write_report(context: ReportContext, accuracies: Mapping[str, Accuracies]) -> None:
    """Print the report to the current `sys.stdout`.

    Args:
        accuracies: short name of each selection method -> its results, in order.
    """
    document = DOCUMENTS[context.format]
    document.begin(len(context.records))
    for short_name, results in accuracies.items():
        document.method(short_name, results)
    for _, section in sections():
        if section.wanted(context.args):
            section.write(context)
    document.end()

"""Section of a report that shows what a study has measured of a sweep's models."""

from __future__ import annotations

import argparse
from abc import ABC, abstractmethod
from collections.abc import Sequence
from pathlib import Path

from domainbed.results.printing import print_paragraphs
from domainbed.results.report import ReportContext
from domainbed_gs.trained_models.table import Row


class StudySection(ABC):
    """`--NAME`; implements `domainbed.results.report.PageSection`.

    Attributes:
        name: name of the flag, and of the script in `domainbed_gs.scripts` that measures.
        title: heading on a page.
        help: meaning of the flag.
        table: file in the sweep directory that the script writes.
        measured: what it measures, as the subject of "No ... measured": "sharpness was".
    """

    name: str
    title: str
    help: str
    table: str
    measured: str

    def add_arguments(self, parser: argparse.ArgumentParser) -> None:
        """Add the flag of this section."""
        group = parser.add_argument_group(f"{self.name} (domainbed_gs)")
        group.add_argument(f"--{self.name}", action="store_true", help=self.help)

    def wanted(self, args: argparse.Namespace) -> bool:
        """Whether the section is requested."""
        return bool(getattr(args, self.name))

    def belongs(self, context: ReportContext) -> bool:
        """Whether the sweep directory has the table."""
        return (context.input_dir / self.table).is_file()

    def write(self, context: ReportContext) -> None:
        """Print tables; on a page also figures.

        Raises: UsageError if a file is not such a table.
        """
        if not self.print_measured(context, getattr(context.args, "baseline", None) or "ERM"):
            command = f"python -m domainbed_gs.scripts.{self.name} --sweep {context.input_dir}"
            print_paragraphs([f"No {self.measured} measured; {command} does so."], context.format)

    def rows_of_runs(self, context: ReportContext, rows: Sequence[Row]) -> list[Row]:
        """The rows of runs that are still there; a note counts the others, which are left out."""

        def folder(row: Row) -> Path:
            path = context.input_dir / str(row["run"])  # a run in another folder has its whole path
            return path.parent if path.suffix == ".pkl" else path

        present = [row for row in rows if folder(row).is_dir()]
        if len(present) < len(rows):
            gone = len({row["run"] for row in rows}) - len({row["run"] for row in present})
            print_paragraphs(
                [f"Note: {self.table} also has {gone} runs that are no longer there; they are left out."],
                context.format,
            )
        return present

    @abstractmethod
    def print_measured(self, context: ReportContext, baseline: str) -> bool:
        """Print tables and figures, in which methods are compared with `baseline`.

        Returns: whether anything was measured.

        Raises: UsageError if a file is not such a table.
        """

"""Report section `alignment`: what `domainbed_gs.scripts.alignment --sweep DIR` has measured.

python -m domainbed.scripts.collect_results --input_dir DIR --alignment
"""

from __future__ import annotations

import argparse

from domainbed.results.plots import have_matplotlib
from domainbed.results.printing import print_panels, print_paragraphs
from domainbed.results.report import ReportContext
from domainbed_gs.alignment.settings import ALIGNMENT


class AlignmentSection:
    """`--alignment`; implements `domainbed.results.report.PageSection`."""

    title = "Gradient variances and curvature between environments"

    def add_arguments(self, parser: argparse.ArgumentParser) -> None:
        """Add the flag of this section."""
        group = parser.add_argument_group("alignment (domainbed_gs)")
        group.add_argument(
            "--alignment",
            action="store_true",
            help="distances between environments, as domainbed_gs.scripts.alignment has measured them",
        )

    def wanted(self, args: argparse.Namespace) -> bool:
        """Whether the section is requested."""
        return bool(args.alignment)

    def belongs(self, context: ReportContext) -> bool:
        """Whether the sweep directory has a table of distances."""
        return (context.input_dir / ALIGNMENT).is_file()

    def write(self, context: ReportContext) -> None:
        """Print the tables; on a page also a figure.

        Raises: UsageError if the file is not a table of distances.
        """
        from domainbed_gs.alignment import figure, study, tables

        rows = study.read(context.input_dir)
        if not rows:
            command = f"python -m domainbed_gs.scripts.alignment --sweep {context.input_dir}"
            print_paragraphs([f"No distances were measured; {command} does so."], context.format)
            return
        tables.print_tables(rows, getattr(context.args, "baseline", None) or "ERM", context.format)
        if context.format == "html" and have_matplotlib():
            drawn = [(name, figure.models_figure(own, name)) for name, own in study.by_dataset(rows).items()]
            print_panels("Distances between environments", drawn, figure.CAPTION)


SECTION = AlignmentSection()

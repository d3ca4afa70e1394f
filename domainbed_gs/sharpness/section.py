"""Report section `sharpness`: what `domainbed_gs.scripts.sharpness --sweep DIR` has measured.

python -m domainbed.scripts.collect_results --input_dir DIR --sharpness
"""

from __future__ import annotations

import argparse

from domainbed.results.plots import have_matplotlib
from domainbed.results.printing import print_panels, print_paragraphs
from domainbed.results.report import ReportContext
from domainbed_gs.sharpness.settings import SHARPNESS


class SharpnessSection:
    """`--sharpness`; implements `domainbed.results.report.PageSection`."""

    title = "Sharpness, domain by domain"

    def add_arguments(self, parser: argparse.ArgumentParser) -> None:
        """Add the flag of this section."""
        group = parser.add_argument_group("sharpness (domainbed_gs)")
        group.add_argument(
            "--sharpness",
            action="store_true",
            help="sharpness of the models, as domainbed_gs.scripts.sharpness has measured it",
        )

    def wanted(self, args: argparse.Namespace) -> bool:
        """Whether the section is requested."""
        return bool(args.sharpness)

    def belongs(self, context: ReportContext) -> bool:
        """Whether the sweep directory has a table of sharpness."""
        return (context.input_dir / SHARPNESS).is_file()

    def write(self, context: ReportContext) -> None:
        """Print the tables; on a page also the figures.

        Raises: UsageError if a file is not a table of sharpness.
        """
        from domainbed_gs.sharpness import figure, study, tables

        rows, curves = study.read(context.input_dir)
        if not rows:
            command = f"python -m domainbed_gs.scripts.sharpness --sweep {context.input_dir}"
            print_paragraphs([f"No sharpness was measured; {command} does so."], context.format)
            return
        tables.print_tables(rows, getattr(context.args, "baseline", None) or "ERM", context.format)
        if context.format == "html" and have_matplotlib():
            for key, methods in figure.panels(curves).items():
                drawn = figure.page_panels(methods)
                print_panels(f"Loss around the models: {figure.panel_title(key)}", drawn, figure.CAPTION)


SECTION = SharpnessSection()

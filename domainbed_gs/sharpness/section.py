"""Report section `sharpness`: what `domainbed_gs.scripts.sharpness --sweep DIR` has measured.

python -m domainbed.scripts.collect_results --input_dir DIR --sharpness
"""

from __future__ import annotations

from domainbed.results.plots import have_matplotlib
from domainbed.results.printing import print_panels
from domainbed.results.report import ReportContext
from domainbed_gs.sharpness.settings import SHARPNESS
from domainbed_gs.studies.section import StudySection


class SharpnessSection(StudySection):
    """`--sharpness`."""

    name = "sharpness"
    title = "Sharpness, domain by domain"
    help = "sharpness of the models, as domainbed_gs.scripts.sharpness has measured it"
    table = SHARPNESS
    measured = "sharpness was"

    def print_measured(self, context: ReportContext, baseline: str) -> bool:
        """Print the tables; on a page also the figures."""
        from domainbed_gs.sharpness import figure, study, tables

        measured, curves = study.read(context.input_dir)
        rows = self.rows_of_runs(context, measured)
        runs = {row["run"] for row in rows}
        if rows:
            tables.print_tables(rows, baseline, context.format)
        if rows and context.format == "html" and have_matplotlib():
            for key, methods in figure.panels([row for row in curves if row["run"] in runs]).items():
                drawn = figure.page_panels(methods)
                print_panels(f"Loss around the models: {figure.panel_title(key)}", drawn, figure.CAPTION)
        return bool(rows)


SECTION = SharpnessSection()

"""Report section `alignment`: what `domainbed_gs.scripts.alignment --sweep DIR` has measured.

python -m domainbed.scripts.collect_results --input_dir DIR --alignment
"""

from __future__ import annotations

from domainbed.results.plots import have_matplotlib
from domainbed.results.printing import print_panels
from domainbed.results.report import ReportContext
from domainbed_gs.alignment.settings import ALIGNMENT
from domainbed_gs.studies.section import StudySection


class AlignmentSection(StudySection):
    """`--alignment`."""

    name = "alignment"
    title = "Gradient variances and curvature between environments"
    help = "distances between environments, as domainbed_gs.scripts.alignment has measured them"
    table = ALIGNMENT
    measured = "distances were"

    def print_measured(self, context: ReportContext, baseline: str) -> bool:
        """Print the tables; on a page also the figures."""
        from domainbed_gs.alignment import figure, study, tables

        rows = self.rows_of_runs(context, study.read(context.input_dir))
        if rows:
            tables.print_tables(rows, baseline, context.format)
        if rows and context.format == "html" and have_matplotlib():
            for name, own in study.by_dataset(rows).items():
                print_panels(
                    f"Distances between environments: {name}", figure.page_panels(own), figure.CAPTION
                )
        return bool(rows)


SECTION = AlignmentSection()

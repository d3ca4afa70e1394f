"""Report section `paired`: compares methods with a baseline on the same trials.

python -m domainbed.scripts.collect_results --input_dir DIR --paired --figures DIR/figures
"""

from __future__ import annotations

import argparse
import math
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from domainbed.errors import UsageError, check_choice
from domainbed.escaping import latex_escape
from domainbed.model_selection import METHODS, SelectionMethod
from domainbed.results.accuracies import Accuracies
from domainbed.results.printing import print_figure_names, print_lines, print_paragraphs
from domainbed.results.report import ReportContext
from domainbed_gs.report import first_screen
from domainbed_gs.report.box_plots import print_box_plots, write_box_plots
from domainbed_gs.report.cautions import cautions
from domainbed_gs.report.cells import PairedReport
from domainbed_gs.report.comparison import compare_all
from domainbed_gs.report.families import CORRECTIONS
from domainbed_gs.report.frame import frame
from domainbed_gs.report.paired_notes import meanings
from domainbed_gs.report.paired_tables import print_paired_tables
from domainbed_gs.report.target_parts import TARGET_PARTS, accuracies_by_part
from domainbed_gs.report.trial_splits import TrialSplits, trial_splits

ALL_IMAGES = (
    "All images of the target: the same trials, selected at the same steps, but measured on all parts of the "
    "target, pooled by their numbers of images."
)


class PairedSection:
    """`--paired` and `--figures`; implements `domainbed.results.report.HeadlineSection`."""

    title = "Paired comparisons"

    def add_arguments(self, parser: argparse.ArgumentParser) -> None:
        """Add the flags of this section."""
        group = parser.add_argument_group("paired comparison (domainbed_gs)")
        group.add_argument("--paired", action="store_true", help="compare the algorithms on the same trials")
        group.add_argument("--baseline", default="ERM", help="algorithm to compare with (default: ERM)")
        group.add_argument(
            "--figures",
            type=Path,
            metavar="DIR",
            help="write a plot of the trials of each dataset to DIR/DATASET.png",
        )
        group.add_argument(
            "--paired_selection",
            metavar="NAME",
            help="selection method (default: the sweep's own, otherwise iccv2021 if the records contain "
            "accuracies on test splits, otherwise iid)",
        )
        group.add_argument(
            "--rope",
            type=float,
            metavar="POINTS",
            help="largest difference without practical importance, in percentage points or the unit of "
            "--metric (default: that of the metric; 1 for accuracies)",
        )
        group.add_argument(
            "--correction",
            default="holm",
            metavar="{holm,none}",
            help="correction for the number of comparisons in each family (default: holm)",
        )
        group.add_argument(
            "--target_part",
            metavar="{test,all}",
            help="compare on the part of the target that the selection method reports, or on all its images "
            "(default: both, one after the other)",
        )
        group.add_argument(
            "--bootstrap_seed",
            type=int,
            default=0,
            help="seed of the bootstrap intervals of --aggregate (default: 0); paired intervals are exact",
        )

    def wanted(self, args: argparse.Namespace) -> bool:
        """Whether tables or figures are requested."""
        return bool(args.paired or args.figures)

    def belongs(self, context: ReportContext) -> bool:
        """Whether the sweep has more than one method."""
        return len(context.records.select("args.algorithm").unique()) > 1

    def write(self, context: ReportContext) -> None:
        """Print the tables, the meaning of their numbers, and cautions.

        In CSV the tables go to stdout and everything else to stderr. A page also has plots of the trials.

        Raises:
            UnknownName: --paired_selection is unknown.
            UsageError: the baseline has no results, --target_part all is impossible, another flag has an
                invalid value, or matplotlib is missing.
            RunError: a figure cannot be written.
        """
        args = context.args
        options = PairedOptions.of(context)
        splits = trial_splits(context.records)
        accuracies = options.accuracies(context)
        reports = options.compare(accuracies, args.baseline, splits)
        report = next(iter(reports.values()))
        if args.paired or context.format == "html":
            title = f"Paired comparison with {report.baseline}"
            print_tables(reports, options.selection, context.format, title)
            warnings = cautions(report, context.records, context.manifest)
            print_notes(reports, options.selection, splits, warnings, context.format)
        print_figures(report, args.figures, context.format)

    def headline_style(self) -> str:
        """The style of the first screen."""
        return first_screen.style()

    def write_headline(self, context: ReportContext) -> None:
        """Print the answer, the facts that limit it, the forest plot, and tables of accuracies.

        Raises: UnknownName and UsageError as `write`.
        """
        words = METHODS[selection_name(context)].name
        if context.args.target_part == "all":
            words += ", on all images of the target"
        first_screen.print_first_screen(report_of(context), context, words)


SECTION = PairedSection()


@dataclass(frozen=True)
class PairedOptions:
    """The options of a paired comparison.

    Attributes:
        selection: name of the selection method.
        rope: largest difference without practical importance, as in records: a fraction.
        correction: one of `CORRECTIONS`.
        target_part: one of `TARGET_PARTS`, or None for both.
        method: the selection method, which reports the metric of the context.
        over_targets: how results on several targets become one, one of `OVER_TARGETS`.
    """

    selection: str
    rope: float
    correction: str
    target_part: str | None
    method: type[SelectionMethod]
    over_targets: str = "mean"

    @classmethod
    def of(cls, context: ReportContext) -> PairedOptions:
        """The options in `context`; raises UsageError for an invalid one."""
        args = context.args
        check_choice("--correction is", args.correction, CORRECTIONS)
        if args.target_part is not None:
            check_choice("--target_part is", args.target_part, TARGET_PARTS)
        selection = selection_name(context)
        method = context.method(selection)
        rope = method.metric.rope if args.rope is None else args.rope
        if not 0 <= rope < math.inf:
            raise UsageError(f"--rope is {rope:g}; expected {method.metric.points}, 0 or more")
        return cls(
            selection=selection,
            rope=rope / method.metric.scale,
            correction=args.correction,
            target_part=args.target_part,
            method=method,
            over_targets=context.over_targets,
        )

    def accuracies(self, context: ReportContext, part: str | None = None) -> dict[str, Accuracies]:
        """Results by the part of the target: `part`, by default that of the options.

        Raises: UsageError as `accuracies_by_part`.
        """
        part = part or self.target_part
        return accuracies_by_part(context.records, self.method, part, context.runs, self.over_targets)

    def compare(
        self, accuracies: Mapping[str, Accuracies], baseline: str, splits: TrialSplits
    ) -> dict[str, PairedReport]:
        """Compare with `baseline` on each part of the target; raises UsageError if that has no results."""
        return {
            part: compare_all(found, baseline, rope=self.rope, correction=self.correction, splits=splits.kind)
            for part, found in accuracies.items()
        }


def selection_name(context: ReportContext) -> str:
    """Name of the selection method: --paired_selection, else the sweep's own, else one the records allow."""
    if context.args.paired_selection:
        return str(context.args.paired_selection)
    if context.manifest and context.manifest.selection:
        return context.manifest.selection[0]
    tested = any(re.fullmatch(r"env\d+_test_acc", key) for record in context.records for key in record)
    return "iccv2021" if tested else "iid"


def report_of(context: ReportContext) -> PairedReport:
    """The comparison that the section shows first: by default that on the protocol's part of the target.

    Raises: UnknownName or UsageError as `PairedSection.write`.
    """
    options = PairedOptions.of(context)
    part = options.target_part or TARGET_PARTS[0]
    accuracies = options.accuracies(context, part)
    return options.compare(accuracies, context.args.baseline, trial_splits(context.records))[part]


def print_tables(reports: Mapping[str, PairedReport], selection: str, format: str, title: str) -> None:
    """Print the tables of each report.

    Args:
        reports: comparisons by part of the target.
        selection: name of the selection method.
        format: "text", "latex", "markdown", "html" or "csv".
        title: heading; that on all images of the target says so.
    """
    for part, report in reports.items():
        heading = f"{title}, all images of the target" if part == "all" else title
        if format == "latex":
            print_lines(f"\n\\subsection{{{latex_escape(heading)}}}")
        print_paired_tables(frame(report, selection, part), format, heading)


def print_notes(
    reports: Mapping[str, PairedReport],
    selection: str,
    splits: TrialSplits,
    warnings: Sequence[str],
    format: str,
    introduction: Sequence[str] = (),
) -> None:
    """Print, below the tables, `introduction`, what varies between trials, meanings, and `warnings`."""
    about = [splits.sentence()]
    if "all" in reports:
        others = " The other tables are those of the protocol." if len(reports) > 1 else ""
        about.append(ALL_IMAGES + others)
    explained = meanings(next(iter(reports.values())), METHODS[selection].name)
    notes = [f"Note: {warning}" for warning in warnings]
    print_paragraphs([*introduction, *about, *explained, *notes], format)


def print_figures(report: PairedReport, folder: Path | None, format: str) -> None:
    """Print plots of the trials into a page; in other formats write them to `folder`, if given."""
    if format == "html":
        print_box_plots(report)
    elif folder is not None:
        print_figure_names(write_box_plots(report, folder), format)

"""Report section `gradients`: agreement and cosine of gradients during training, as surgery methods log them.

python -m domainbed.scripts.collect_results --input_dir DIR --gradients
"""

from __future__ import annotations

import argparse
from collections.abc import Iterator, Mapping
from typing import TYPE_CHECKING

from domainbed.algorithms import REGISTRY
from domainbed.records.query import Q
from domainbed.records.results_file import Record
from domainbed.records.target_sets import shown_records
from domainbed.results.accuracies import ShownDataset, shown_datasets
from domainbed.results.curves import LearningCurve, curve_data, draw_curve, learning_curve, logged
from domainbed.results.plots import BLUE, INK, PALE, have_matplotlib, plain_axes
from domainbed.results.printing import print_panels, print_paragraphs, print_section_table
from domainbed.results.report import ReportContext

if TYPE_CHECKING:
    from matplotlib.figure import Figure

MEASURES = {
    "agreement": "share of components with the same sign in all environments",
    "zeros": "share of components that are 0 in an environment, and so agree with no sign",
    "cosine": "mean cosine similarity over pairs of environments",
}

COLUMNS = ["Algorithm", "Measure", "First record", "Halfway", "Last record", "By chance"]
"""Columns of the table: values of a measure at the first, middle and last record, and what chance gives."""

Curves = dict[str, dict[str, LearningCurve]]
"""Algorithm -> measure -> curve."""


class GradientsSection:
    """`--gradients`; implements `domainbed.results.report.PageSection`."""

    title = "Agreement of gradients"

    def add_arguments(self, parser: argparse.ArgumentParser) -> None:
        """Add the flag of this section."""
        group = parser.add_argument_group("agreement of gradients (domainbed_gs)")
        group.add_argument(
            "--gradients", action="store_true", help="agreement and cosine of the environments' gradients"
        )

    def wanted(self, args: argparse.Namespace) -> bool:
        """Whether the section is requested."""
        return bool(args.gradients)

    def belongs(self, context: ReportContext) -> bool:
        """Whether a run has logged agreement or cosine."""
        return any(name in record for record in context.records for name in MEASURES)

    def write(self, context: ReportContext) -> None:
        """Print a table for each dataset; on a page also the curves."""
        if not self.belongs(context):
            line = "No run has logged agreement or cosine. Gradient surgery methods log them."
            print_paragraphs([line], context.format)
            return
        datasets = [
            (columns, _curves(context.records, columns)) for columns in shown_datasets(context.records)
        ]
        for columns, curves in datasets:
            title = f"Dataset: {columns.name}, agreement of gradients"
            if curves:
                rows = list(_rows(curves, len(columns.sources(0))))
                print_section_table(title, COLUMNS, rows, context.format)
        lines = [f"{name}: {meaning}." for name, meaning in MEASURES.items()]
        lines.append(
            "Each record is a mean over the updates since the previous record. Numbers: mean +/- standard "
            "error over trials. By chance: expected of independent signs at the last record, "
            "2^(1-K) (1 - zeros) for the agreement of K sources, and 0 for the cosine; records without zeros "
            "count as having none."
        )
        print_paragraphs(lines, context.format)
        if context.format == "html" and have_matplotlib():
            for columns, curves in datasets:
                _print_figures(columns, curves)


SECTION = GradientsSection()


def _curves(records: Q[Record], columns: ShownDataset) -> Curves:
    """Curves of the runs on one dataset with one target, or with a set of targets."""
    found: Curves = {}
    of_dataset = shown_records(records.filter_equals("args.dataset", columns.name))
    for algorithm, own in of_dataset.group("args.algorithm"):
        runs = own.group("args.trial_seed, args.test_envs, args.hparams_seed")
        for name in MEASURES:
            measured = learning_curve([(key[0], of_run) for key, of_run in runs], logged(name))
            if measured is not None:
                found.setdefault(algorithm, {})[name] = measured
    return {name: found[name] for name in REGISTRY.order(found)}


def _by_chance(name: str, own: Mapping[str, LearningCurve], sources: int) -> float | None:
    """What independent signs would give at the last record, or None if chance says nothing of the measure."""
    if name == "agreement":
        from domainbed.gradients.comparison import agreement_by_chance  # imports torch

        return agreement_by_chance(sources, own["zeros"].means[-1] if "zeros" in own else 0.0)
    return 0.0 if name == "cosine" else None


def _rows(curves: Curves, sources: int) -> Iterator[list[str]]:
    for algorithm, own in curves.items():
        for name, measured in own.items():
            places = (0, len(measured.steps) // 2, len(measured.steps) - 1)
            texts = [f"{measured.means[i]:.3f} +/- {measured.errors[i]:.3f}" for i in places]
            chance = _by_chance(name, own, sources)
            yield [algorithm, name, *texts, "" if chance is None else f"{chance:.3f}"]


def _print_figures(columns: ShownDataset, curves: Curves) -> None:
    sources = len(columns.sources(0))
    panels = [
        (f"{name} of {algorithm}", _panel(algorithm, name, own[name], _by_chance(name, own, sources)))
        for name in MEASURES
        for algorithm, own in curves.items()
        if name in own
    ]
    title = f"Dataset: {columns.name}, agreement and cosine over the updates"
    caption = "Band: standard error over trials. Dashed: value expected by chance at the last record."
    named = [([algorithm, name], own[name]) for algorithm, own in curves.items() for name in own]
    print_panels(title, panels, caption, curve_data(named, ["Algorithm", "Measure"], digits=4))


def _panel(algorithm: str, name: str, measured: LearningCurve, chance: float | None) -> Figure:
    from matplotlib.figure import Figure

    figure = Figure(figsize=(3.4, 2.4), layout="constrained")
    axis = figure.subplots()
    draw_curve(axis, measured, name, BLUE, "solid", "o")
    if chance is not None:
        axis.axhline(chance, color=PALE, linewidth=0.9, linestyle="dashed")
    axis.set_title(algorithm, color=INK, fontsize=11)
    axis.set_xlabel("updates", color=INK)
    axis.set_ylabel(name, color=INK)
    plain_axes(axis)
    return figure

"""Print the results of a sweep as DomainBed's tables, and keep a copy in the sweep directory.

    python -m domainbed.scripts.collect_results --input_dir SWEEP [--latex] [--html report.html]

The tables go to stdout and to results.txt (.tex, .md, .csv), notes on missing results to stderr. --html
writes one page with all results.
"""

from __future__ import annotations

import argparse
import shlex
import sys
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

from domainbed.command_line import CommandParser
from domainbed.errors import run_script
from domainbed.model_selection import SelectionMethod, merge_records, recursive_freeze
from domainbed.records.query import Q
from domainbed.records.results_file import Record
from domainbed.results.accuracies import OVER_TARGETS, compute_accuracies
from domainbed.results.collect import collect_results
from domainbed.results.domainbed_tables import FORMATS, print_upstream_tables
from domainbed.results.loading import SELECTION_HELP, add_loading_flags
from domainbed.results.report import sections
from domainbed.results.tables import format_mean, print_table

__all__ = [
    "format_mean",
    "main",
    "merge_records",
    "print_results_tables",
    "print_table",
    "recursive_freeze",
    "remove_key",
]
"""`main`, and the functions that upstream's module of this name has."""


def print_results_tables(
    records: Iterable[Record], selection_method: type[SelectionMethod], latex: bool
) -> None:
    """Print the tables of one selection method: one for each dataset, then the averages."""
    print_upstream_tables(compute_accuracies(Q(records), selection_method), latex)


def remove_key(d: Mapping[str, Any], key: str) -> dict[str, Any]:
    """A copy of `d` without `key`. Raises KeyError if `d` does not have it."""
    copy = dict(d)
    del copy[key]
    return copy


def main(argv: Sequence[str] | None = None) -> int:
    """Parse `argv`, by default `sys.argv[1:]`, and print the report; return the exit status."""
    argv = sys.argv[1:] if argv is None else argv
    args = build_parser().parse_args(argv)
    collect_results(
        args.input_dir,
        selection=args.selection,
        metric=args.metric,
        over_targets=args.over_targets,
        finished_only=args.finished_only,
        mix_data=args.mix_data,
        where=args.where,
        by=args.by,
        strict=args.strict,
        format=args.format,
        output_dir=args.output_dir,
        html=args.html,
        relaunch_best=args.relaunch_best,
        relaunch_from=args.relaunch_from,
        ensembles=args.ensembles,
        section_args=args,
        target_sets=args.target_sets,
        command=shlex.join(["python", "-m", "domainbed.scripts.collect_results", *argv]),
    )
    return 0


def build_parser() -> CommandParser:
    """The parser of all flags."""
    parser = CommandParser(
        "domainbed.scripts.collect_results",
        "Show the results of a sweep.",
        "--input_dir DIR",
        {
            "--input_dir runs/quickstart": "DomainBed's tables",
            "--input_dir runs/quickstart --paired --html report.html": "also tests, and one page with all",
            "--input_dir runs/quickstart --figures figures": "also plots (extra plots)",
        },
    )
    add_loading_flags(parser.add_argument_group("runs"))
    _add_reported(parser.add_argument_group("what is reported"))
    _add_output(parser.add_argument_group("output"))
    for _, section in sections():
        section.add_arguments(parser)
    return parser


def _add_reported(group: argparse._ArgumentGroup) -> None:
    selection = group.add_mutually_exclusive_group()
    selection.add_argument("--selection", nargs="+", metavar="NAME", help=SELECTION_HELP)
    selection.add_argument(
        "--auto_lr",
        action="store_const",
        const=["autolr"],
        dest="selection",
        help="same as --selection autolr, for runs of train_autolr",
    )
    group.add_argument(
        "--metric",
        default="acc",
        metavar="NAME",
        help="what to report of the selected steps: acc, nll, ece, balanced, worst, f1, or a plugin's "
        "metric; it changes no selection (default: acc)",
    )
    group.add_argument(
        "--over_targets",
        choices=OVER_TARGETS,
        default="mean",
        help="how the results of a trial on several targets become one number: their mean, or the worst of "
        "them (default: mean)",
    )
    group.add_argument(
        "--by", metavar="NAME", help="one report for each value of this setting or hyper-parameter"
    )
    group.add_argument(
        "--ensembles",
        action="store_true",
        help="also report, for each method, the average of its trials' predictions, and of their weights if "
        "they began with the same ones; needs --save_predictions or saved models",
    )
    group.add_argument(
        "--strict", action="store_true", help="exit with status 1 if runs of a method are several experiments"
    )


def _add_output(group: argparse._ArgumentGroup) -> None:
    formats = group.add_mutually_exclusive_group()
    formats.add_argument(
        "--format", choices=tuple(FORMATS), default="text", help="format of the tables (default: text)"
    )
    formats.add_argument(
        "--latex", action="store_const", const="latex", dest="format", help="same as --format latex"
    )
    group.add_argument(
        "--output_dir",
        type=Path,
        metavar="DIR",
        help="folder for the copy of the report (default: the sweep directory)",
    )
    group.add_argument("--html", type=Path, metavar="FILE", help="also write a page with all results")
    group.add_argument(
        "--relaunch_best",
        type=Path,
        metavar="FILE",
        help="also write a sweep file (.toml) that runs the best setting of each algorithm, by the first "
        "selection method, on more trials",
    )
    group.add_argument(
        "--relaunch_from",
        type=int,
        metavar="TRIAL",
        help="number of the first trial in that file (default: the one after those of this sweep, so that no "
        "trial has the split that its setting was chosen on); 0 repeats them",
    )


if __name__ == "__main__":
    run_script(main)

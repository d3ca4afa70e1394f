"""Plan an experiment from a pilot: how many trials find a difference, and how long they take.

    python -m domainbed_gs.scripts.plan --input_dir PILOT --difference 1.0 [--write sweep.toml]

The pilot is a sweep of at least two algorithms with at least two trials.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence
from pathlib import Path

from domainbed.command_line import CommandParser
from domainbed.errors import RunError, UsageError, run_script
from domainbed.results.loading import add_loading_flags, load_sweep

FORMATS = ("text", "latex", "markdown", "csv")


def build_parser() -> CommandParser:
    """The parser of all flags."""
    parser = CommandParser(
        "domainbed_gs.scripts.plan",
        "Plan the number of trials of an experiment from a pilot.",
        "--input_dir DIR --difference POINTS",
        {
            "--input_dir runs/quickstart --difference 1": "trials to find a difference of one point",
            "--input_dir runs/quickstart --difference 1 --write p.toml": "also a sweep file with them",
        },
    )
    add_loading_flags(parser.add_argument_group("runs"))
    add = parser.add_argument_group("the plan").add_argument
    add(
        "--difference",
        metavar="POINTS",
        type=float,
        required=True,
        help="difference to find, in percentage points",
    )
    add("--power", type=float, default=0.8, help="probability of finding the difference (default: 0.8)")
    add("--alpha", type=float, default=0.05, help="level of a family of tests (default: 0.05)")
    add(
        "--methods",
        type=int,
        metavar="N",
        help="number of methods that the experiment compares with the baseline (default: the pilot's)",
    )
    add("--baseline", default="ERM", help="algorithm to compare with (default: ERM)")
    add(
        "--paired_selection",
        metavar="NAME",
        help="selection method (default: as in collect_results --paired)",
    )
    add("--write", type=Path, metavar="FILE", help="write a sweep file (.toml) with the planned trials")
    add("--format", choices=FORMATS, default="text", help="format of the tables (default: text)")
    return parser


def main(argv: Sequence[str] | None = None) -> int:
    """Print the plan, and write the sweep file if one is asked for; returns the exit status."""
    args = build_parser().parse_args(argv)
    _check(args)
    from domainbed.model_selection import METHODS
    from domainbed.results.accuracies import compute_accuracies
    from domainbed.results.report import ReportContext
    from domainbed_gs.report.comparison import compare_all
    from domainbed_gs.report.paired import selection_name
    from domainbed_gs.report.plan import Goal, make_plan
    from domainbed_gs.report.plan_tables import answer, pilot_notes, print_plan
    from domainbed_gs.report.planned_sweep import write_planned_sweep
    from domainbed_gs.report.trial_splits import trial_splits

    sweep = load_sweep(
        args.input_dir,
        finished_only=args.finished_only,
        mix_data=args.mix_data,
        where=args.where,
        target_sets=args.target_sets,
    )
    context = ReportContext(sweep.records, args.input_dir, args, args.format, sweep.manifest)
    selection = selection_name(context)
    splits = trial_splits(sweep.records).kind
    accuracies = compute_accuracies(sweep.records, METHODS[selection])
    sweep.runs.explain_missing(accuracies, METHODS[selection])
    report = compare_all(accuracies, args.baseline, splits=splits)
    goal = Goal(args.difference / 100, args.power, args.alpha)
    plan = make_plan(report, sweep.records, goal, args.methods, progress=True)
    print_plan(plan, selection, pilot_notes(plan, report.splits), args.format)
    if args.write is not None:
        if plan.trials is None:
            raise RunError(f"{args.write} is not written. {answer(plan)} Give a larger --difference")
        commands = write_planned_sweep(
            args.write,
            sweep.records,
            trials=plan.trials,
            selection=list(dict.fromkeys([selection, *(sweep.manifest.selection if sweep.manifest else ())])),
            sweep_dir=args.input_dir,
            about=f"Planned from {args.input_dir}: {answer(plan)}",
        )
        lines = [f"Wrote {args.write}. To launch it:", *(f"    {command}" for command in commands)]
        print(*lines, sep="\n", file=sys.stderr)
    return 0


def _check(args: argparse.Namespace) -> None:
    """Check the numbers before anything is read; raises UsageError."""
    if not 0 < args.difference <= 100:
        raise UsageError(
            f"--difference is in percentage points, above 0 and at most 100, not {args.difference}"
        )
    for name in ("power", "alpha"):
        if not 0 < getattr(args, name) < 1:
            raise UsageError(f"--{name} must be between 0 and 1, not {getattr(args, name)}")
    if args.methods is not None and args.methods < 1:
        raise UsageError(f"--methods must be at least 1, not {args.methods}")


if __name__ == "__main__":
    run_script(main)

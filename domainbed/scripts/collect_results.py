"""Print the results of a sweep as DomainBed's tables, and keep a copy in the sweep directory.

    python -m domainbed.scripts.collect_results --input_dir SWEEP [--latex] [--html report.html]

Tables go to stdout and to results.txt (.tex, .md, .csv); notes on what is missing go to stderr. --html writes
everything into one page.
"""

from __future__ import annotations

import argparse
import contextlib
import io
import sys
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import replace
from pathlib import Path

from domainbed.console import Tee
from domainbed.errors import RunError, run_script
from domainbed.files import write_whole
from domainbed.model_selection import SelectionMethod
from domainbed.records.jsonl import Record
from domainbed.records.query import Q
from domainbed.results import command_line, notes
from domainbed.results.accuracies import compute
from domainbed.results.documents import DOCUMENTS, print_tables
from domainbed.results.merging import merge_records, recursive_freeze, remove_key
from domainbed.results.page.content import Content
from domainbed.results.report import ReportContext, sections, write_report
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


def print_results_tables(
    records: Iterable[Record], selection_method: type[SelectionMethod], latex: bool
) -> None:
    """Print the tables of one selection method: one for each dataset, then the averages."""
    print_tables(compute(Q(records), selection_method), latex)


def main(argv: Sequence[str] | None = None) -> int:
    """Run the script; `argv` without the program's name, None for that of the process."""
    args = _parser().parse_args(argv)
    args.typed = list(sys.argv[1:] if argv is None else argv)
    sweep = command_line.load(args.input_dir, args.finished_only, args.mix_data)
    methods = sweep.methods(args.selection)
    accuracies = {name: compute(sweep.records, method) for name, method in methods.items()}
    context = ReportContext(sweep.records, args.input_dir, args, args.format, sweep.manifest)
    copy = io.StringIO()
    with contextlib.redirect_stdout(Tee(copy)):
        write_report(context, accuracies)
    _keep(copy.getvalue(), args.output_dir or args.input_dir, f"results{DOCUMENTS[args.format].suffix}")
    for note in notes.on_tables(accuracies, sweep.records):
        print(f"note: {note}", file=sys.stderr)
    if args.html:
        _write_page(args.html, Content(replace(context, format="html"), methods, accuracies, sweep.notes))
    if args.relaunch_best:
        _relaunch(args.relaunch_best, sweep.records, methods, args.input_dir)
    return 0


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="python -m domainbed.scripts.collect_results", description="Show the results of a sweep."
    )
    command_line.add_arguments(parser)
    parser.add_argument(
        "--output_dir", type=Path, help="where the copy of the tables goes (default: the sweep directory)"
    )
    parser.add_argument("--html", type=Path, metavar="FILE", help="also write a page with everything")
    parser.add_argument(
        "--relaunch_best",
        type=Path,
        metavar="FILE",
        help="also write a sweep file (.toml) that runs the best setting of each algorithm, by the first "
        "selection method, on more trials",
    )
    formats = parser.add_mutually_exclusive_group()
    formats.add_argument("--format", choices=tuple(DOCUMENTS), default="text", help="(default: text)")
    formats.add_argument(
        "--latex", action="store_const", const="latex", dest="format", help="the same as --format latex"
    )
    selection = parser.add_mutually_exclusive_group()
    selection.add_argument("--selection", nargs="+", metavar="NAME", help=command_line.SELECTION_HELP)
    selection.add_argument(
        "--auto_lr",
        action="store_const",
        const=["autolr"],
        dest="selection",
        help="the same as --selection autolr, for runs of train_autolr",
    )
    for _, section in sections():
        section.add_arguments(parser)
    return parser


def _write_page(path: Path, content: Content) -> None:
    from domainbed.results.page.write import page_of

    page = page_of(content)
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        write_whole(path, page)
    except OSError as error:
        raise RunError(f"the page can't be written to {path}: {error.strerror or error}") from None
    print(f"Page: {path}", file=sys.stderr)


def _relaunch(
    path: Path, records: Q[Record], methods: Mapping[str, type[SelectionMethod]], input_dir: Path
) -> None:
    from domainbed.results import relaunch
    from domainbed.results.settings import candidates

    name, method = next(iter(methods.items()))
    commands = relaunch.write(path, candidates(records, method), name, method, input_dir)
    print(f"The best settings are in {path}; run them by", *commands, sep="\n    ", file=sys.stderr)


def _keep(report: str, folder: Path, name: str) -> None:
    """Write the copy; a folder that cannot be written costs a warning, since stdout has the report."""
    try:
        folder.mkdir(parents=True, exist_ok=True)
        write_whole(folder / name, report)
    except OSError as error:
        reason = error.strerror or error
        print(
            f"warning: no copy in {folder / name} ({reason}); --output_dir names another place",
            file=sys.stderr,
        )


if __name__ == "__main__":
    run_script(main)

"""Sharpness of trained models: of the pooled loss, and of each environment's loss.

    python -m domainbed_gs.scripts.sharpness --model RUN_DIR [RUN_DIR ...]
    python -m domainbed_gs.scripts.sharpness --sweep SWEEP_DIR

Writes sharpness.csv, loss_curves.csv and figures, and prints a table of methods. The same command resumes.
"""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

from domainbed.command_line import CommandParser
from domainbed.errors import run_script
from domainbed.training.settings import flags_of
from domainbed_gs.studies.command import add_model_flags, chosen_models, figure_files, write_figures

if TYPE_CHECKING:
    from domainbed_gs.trained_models.table import Row


def build_parser() -> CommandParser:
    """The parser of all flags."""
    from domainbed_gs.sharpness.settings import Sharpness

    parser = CommandParser(
        "domainbed_gs.scripts.sharpness",
        "Measure the sharpness of the pooled loss and of each environment's loss.",
        "(--model RUN_DIR ... | --sweep SWEEP_DIR)",
        {"--model train_output": "one trained model", "--sweep SWEEP_DIR": "all trained models of a sweep"},
    )
    add_model_flags(parser.add_mutually_exclusive_group())
    parser.add_argument(
        "--output_dir",
        type=Path,
        help="folder of the results (default: the sweep's, or that of a single run)",
    )
    parser.add_argument("--data_dir", help="root folder of the datasets (default: that of each run)")
    parser.add_argument("--device", default="auto", help="auto, cpu, cuda, cuda:1, ... (default: auto)")
    parser.add_argument("--cache_dir", help="folder of decoded images (default: as for train)")
    parser.add_argument("--baseline", default="ERM", help="method to compare with (default: ERM)")
    parser.add_argument("--restart", action="store_true", help="measure all models again")
    group = parser.add_argument_group("measurement")
    for declared in flags_of(Sharpness).values():
        declared.add_to(group)
    return parser


def main(argv: Sequence[str] | None = None) -> int:
    """Measure, then print the table of methods and draw the figures; returns the exit status."""
    args = build_parser().parse_args(argv)
    from domainbed_gs.sharpness import study
    from domainbed_gs.sharpness.settings import CURVES, SHARPNESS, Sharpness
    from domainbed_gs.trained_models.loading import LoadOptions

    how = Sharpness(**{name: getattr(args, name) for name in flags_of(Sharpness)})
    files, folder = chosen_models(args.model, args.sweep, args.output_dir)
    options = LoadOptions(args.data_dir, args.device, args.cache_dir)
    found = study.run(files, how, folder, options, args.restart)
    if found.runs:
        _show(found.rows(SHARPNESS), found.rows(CURVES), folder, args.baseline)
    found.check()
    return 0


def _show(rows: Sequence[Row], curves: Sequence[Row], folder: Path, baseline: str) -> None:
    from domainbed_gs.sharpness import figure, tables
    from domainbed_gs.sharpness.settings import CURVES, SHARPNESS

    tables.print_tables(rows, baseline, "text")
    print(f"Table: {folder / SHARPNESS}")
    if curves:
        print(f"Curves: {folder / CURVES}")
        panels = figure.panels(curves)
        titles = [figure.panel_title(key) for key in panels]
        draw = [partial(figure.curves_figure, *each) for each in zip(panels.values(), titles, strict=True)]
        write_figures(dict(zip(figure_files(folder, "sharpness", titles), draw, strict=True)))


if __name__ == "__main__":
    run_script(main)

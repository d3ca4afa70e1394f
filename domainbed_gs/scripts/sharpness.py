"""Sharpness of trained models: of the pooled loss, and of each environment's loss.

    python -m domainbed_gs.scripts.sharpness --model RUN_DIR [RUN_DIR ...]
    python -m domainbed_gs.scripts.sharpness --sweep SWEEP_DIR

Writes sharpness.csv, loss_curves.csv and figures, and prints a table of methods. The same command resumes.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from functools import partial
from pathlib import Path

from domainbed.command_line import CommandParser
from domainbed.errors import run_script
from domainbed.training.settings import flags_of
from domainbed_gs.studies.command import add_model_flags, chosen_models, write_figures


def build_parser() -> CommandParser:
    """The parser of all flags."""
    from domainbed_gs.sharpness.settings import Sharpness

    parser = CommandParser(
        "domainbed_gs.scripts.sharpness",
        "Measure the sharpness of the pooled loss and of each environment's loss.",
        "(--model RUN_DIR ... | --sweep SWEEP_DIR)",
        {"--model train_output": "one trained model", "--sweep SWEEP_DIR": "all trained models of a sweep"},
    )
    which = parser.add_mutually_exclusive_group(required=True)
    add_model_flags(which)
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
    from domainbed_gs.sharpness import figure, study, tables
    from domainbed_gs.sharpness.settings import CURVES, SHARPNESS, Sharpness
    from domainbed_gs.trained_models.loading import LoadOptions

    how = Sharpness(**{name: getattr(args, name) for name in flags_of(Sharpness)})
    files, folder = chosen_models(args.model, args.sweep, args.output_dir)
    options = LoadOptions(args.data_dir, args.device, args.cache_dir)
    found = study.run(files, how, folder, options, args.restart)
    rows, curves = found[SHARPNESS].rows, found[CURVES].rows
    tables.print_tables(rows, args.baseline, "text")
    print(f"Table: {folder / SHARPNESS}")
    if curves:
        print(f"Curves: {folder / CURVES}")
        pictures = {}
        panels = figure.panels(curves)
        for key, methods in panels.items():
            title = figure.panel_title(key)
            suffix = f"_{_file_name(title)}" if len(panels) > 1 else ""
            pictures[folder / f"sharpness{suffix}.png"] = partial(figure.curves_figure, methods, title)
        write_figures(pictures)
    return 0


def _file_name(title: str) -> str:
    return re.sub(r"[^A-Za-z0-9]+", "_", title).strip("_")


if __name__ == "__main__":
    run_script(main)

"""Train a model and measure the similarity of per-sample gradients, within and between environments.

    python -m domainbed_gs.scripts.similarity --dataset EmojiStyles --output_dir runs/similarity

An ordinary run of `domainbed.scripts.train`, with the same flags and a few more, that also writes
similarity.csv and similarity.png. The same command resumes an interrupted run, and draws the figure of a
finished one again.
"""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from pathlib import Path

from domainbed.errors import run_script
from domainbed.training import train_command
from domainbed_gs.studies.command import title_of_run, write_figures

STUDY_FLAGS = ("samples", "every", "mode", "train_on")


def build_parser() -> argparse.ArgumentParser:
    """Parser with the flags of `train` and those of the study."""
    parser = train_command.build_parser(
        "domainbed_gs.scripts.similarity",
        "Train one model and measure similarities of per-sample gradients during training.",
        {"--dataset EmojiStyles --test_envs 2 --output_dir runs/s": "measure at each update"},
    )
    add = parser.add_argument_group("similarities").add_argument
    add("--samples", type=int, default=8, help="samples from each source (default: 8)")
    add("--every", type=int, default=1, help="updates between two measurements (default: 1)")
    add(
        "--mode",
        type=str,
        default="eval",
        help="network mode during measurements: eval, or train with dropout (default: eval)",
    )
    add(
        "--train_on",
        type=str,
        default="all",
        help="minibatches for training: all (ordinary), or class (the measured samples) (default: all)",
    )
    return parser


def main(argv: Sequence[str] | None = None) -> int:
    """Train with measurements, then print a summary and draw the figure; returns the exit status."""
    flags = vars(build_parser().parse_args(argv))
    from domainbed.training.config_checks import from_settings
    from domainbed_gs.similarity import figure, study, summary
    from domainbed_gs.similarity.table import NAME, TABLE

    own = {name: flags.pop(name) for name in STUDY_FLAGS}
    config = from_settings(flags)
    study.train(config, study.Study(**own))
    folder = Path(config.output_dir)
    rows = TABLE.read(folder / NAME)
    sources = len(config.dataset_class().ENVIRONMENTS) - len(config.test_envs)
    print(*summary.describe(rows, sources), f"Table: {folder / NAME}", sep="\n")
    title = title_of_run(config)
    write_figures({folder / "similarity.png": lambda: figure.similarity_figure(rows, title, sources)})
    return 0


if __name__ == "__main__":
    run_script(main)

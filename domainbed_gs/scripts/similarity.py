"""Train, and measure how alike the gradients of single samples are, within and between environments.

    python -m domainbed_gs.scripts.similarity --dataset EmojiStyles --output_dir runs/similarity

An ordinary run of `domainbed.scripts.train`, all of whose flags it takes, that also writes similarity.csv and
similarity.png. The same command goes on with what was interrupted, and draws again what is finished.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence
from pathlib import Path

from domainbed.errors import UsageError, run_script
from domainbed.scripts import train

OWN = ("samples", "every", "mode", "train_on")


def build_parser() -> argparse.ArgumentParser:
    """The flags of `train`, then those of the study."""
    parser = train.build_parser()
    parser.prog = "python -m domainbed_gs.scripts.similarity"
    parser.description = "Train one model, and measure similarities of per-sample gradients on the way."
    add = parser.add_argument_group("similarities").add_argument
    add("--samples", type=int, default=8, help="samples of the class from each source (default: 8)")
    add("--every", type=int, default=1, help="updates from one measurement to the next (default: 1)")
    add("--mode", type=str, default="eval", help="of the network: eval, or train (with dropout)")
    add(
        "--train_on",
        type=str,
        default="all",
        help="what updates see: all (ordinary minibatches), or class (only the samples that are measured)",
    )
    return parser


def main(argv: Sequence[str] | None = None) -> int:
    """Parse, train and measure, then sum up and draw; returns the exit status."""
    flags = vars(build_parser().parse_args(argv))
    from domainbed.files import write_whole
    from domainbed.training.config import TrainConfig
    from domainbed_gs.similarity import figure, study, summary, table

    own = {name: flags.pop(name) for name in OWN}
    config = TrainConfig(**flags)
    study.train(config, study.Study(**own))
    folder = Path(config.output_dir)
    rows = table.read(folder / table.NAME)
    print(*summary.describe(rows), f"Table: {folder / table.NAME}", sep="\n")
    names = config.dataset_class().ENVIRONMENTS
    targets = ", ".join(names[target] for target in config.test_envs)
    title = f"{Path(config.dataset).name}, target {targets} ({config.algorithm})"
    try:
        picture = figure.draw(rows, title, len(names) - len(config.test_envs))
    except UsageError as error:
        print(f"warning: {error}", file=sys.stderr)  # hours of training are not lost for a picture
        return 0
    write_whole(folder / "similarity.png", picture)
    print(f"Figure: {folder / 'similarity.png'}")
    return 0


if __name__ == "__main__":
    run_script(main)

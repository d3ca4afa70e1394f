"""Predict the classes of images with trained models.

    python -m domainbed.scripts.predict --model RUN_DIR --images FOLDER --out predictions.csv

Several models are averaged. A summary goes to stdout; without output files, a line for each image before it.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from domainbed.command_line import CommandParser
from domainbed.console import shortened_list
from domainbed.datasets.reading_rules import count_by_reason, text_of_counts
from domainbed.errors import UsageError, run_script
from domainbed.escaping import visible
from domainbed.results.printing import note_formula_cells, print_section_table

if TYPE_CHECKING:
    from domainbed.inference.image_samples import Sample
    from domainbed.inference.model import Model, Predictions
    from domainbed.inference.predict import PredictedFiles


def main(argv: Sequence[str] | None = None) -> int:
    """Parse `argv`, by default `sys.argv[1:]`, predict, and print what came out; return the exit status."""
    args = build_parser().parse_args(argv)
    _check(args)
    from domainbed.inference.loading import load_models

    model = load_models(args.model, args.device, args.classes, args.truncated)
    if args.export:
        from domainbed.inference.exported import export

        beside = export(model.members[0].saved, args.export)
        print(f"Exported to {visible(str(args.export))} and {visible(str(beside))}")
    if args.images:
        _predict(model, args)
    return 0


def _check(args: argparse.Namespace) -> None:
    """Check the flags together. Raises UsageError."""
    if args.batch_size is not None and args.batch_size < 1:
        raise UsageError(f"--batch_size must be 1 or more, not {args.batch_size}")
    if not args.images and (args.out or args.features or args.confusion or not args.export):
        raise UsageError("--images is missing; pass images, a folder of images, or a list (.csv, .jsonl)")
    if len(args.model) > 1 and (args.features or args.export):
        raise UsageError("--features and --export take a single --model")


def _predict(model: Model, args: argparse.Namespace) -> None:
    from domainbed.inference.predict import predict_files
    from domainbed.training.evaluation import BATCH_SIZE

    lines = None if args.out or args.features or args.confusion else _Lines()
    done = predict_files(
        model,
        args.images,
        out=args.out,
        features=args.features,
        labels=not args.no_labels,
        need_labels=args.confusion,
        batch_size=args.batch_size or BATCH_SIZE,
        consumer=lines,
    )
    if lines is not None:
        print(*lines.lines, sep="\n")
    _print_summary(done, model.classes)
    if args.confusion:
        _print_confusion(done, model.classes)
    for path in filter(None, (args.out, args.features)):
        print(f"Written: {visible(str(path))}")
    if done.skipped:
        skipped = text_of_counts(count_by_reason(done.skipped))
        print(f"note: files that are not read: {skipped}", file=sys.stderr)
    note_formula_cells(map(visible, done.formulas))


class _Lines:
    """Lines "path: class (probability)"."""

    def __init__(self) -> None:
        self.lines: list[str] = []

    def add(self, samples: Sequence[Sample], predictions: Predictions) -> None:
        for i, (sample, name) in enumerate(zip(samples, predictions.names, strict=True)):
            probability = predictions.probabilities[i, predictions.labels[i]]
            self.lines.append(visible(f"{sample.path}: {name} ({probability:.3f})"))


def _print_summary(done: PredictedFiles, classes: Sequence[str]) -> None:
    counts = done.counts
    for group, (correct, total) in counts.correct.items():
        on = f" on {group}" if group else ""
        print(visible(f"accuracy{on}: {_share(correct, total)}"))
    if len(counts.correct) > 1:
        correct, total = map(sum, zip(*counts.correct.values(), strict=True))
        print(f"accuracy on all: {_share(correct, total)}")
    if not counts.correct:
        order = sorted(range(len(classes)), key=lambda label: -counts.predicted[label])
        found = [
            f"{classes[label]} {counts.predicted[label]:,}" for label in order if counts.predicted[label]
        ]
        print(visible(f"predicted: {shortened_list(found, 20)}"))


def _share(correct: int, total: int) -> str:
    return f"{100 * correct / total:.2f} % ({correct:,} of {total:,} images)"


def _print_confusion(done: PredictedFiles, classes: Sequence[str]) -> None:
    rows = [
        [name, *(str(count) for count in row)]
        for name, row in zip(classes, done.counts.confusion, strict=True)
    ]
    print_section_table("Images by true class (rows) and predicted class", ["True", *classes], rows, "text")


def build_parser() -> CommandParser:
    """The parser of all flags."""
    parser = CommandParser(
        "domainbed.scripts.predict",
        "Predict the classes of images with trained models.",
        "--model RUN_DIR ...",
        {
            "--model train_output --images photos --out found.csv": "the images of a folder",
            "--model runs/0 runs/1 --images photos --confusion": "two models, averaged",
            "--model train_output --export model.safetensors": "weights for others (extra safetensors)",
        },
    )
    add = parser.add_argument_group("models and images").add_argument
    add(
        "--model",
        nargs="+",
        required=True,
        metavar="RUN_DIR",
        help="directory of a run, or a file of it (model_step300.pkl); several models are averaged",
    )
    add(
        "--images",
        nargs="+",
        metavar="PATH",
        help="images; a folder of images, of a folder for each class, or of such folders; or a list (.csv, "
        ".jsonl) with the column path and optionally label, environment and split",
    )
    add("--no_labels", action="store_true", help="names of folders, and labels in lists, are not classes")
    add(
        "--classes",
        nargs="+",
        metavar="NAME",
        help="names of the classes in the order of the labels, or a folder that has a folder for each: for "
        "models of older releases, which lack them",
    )
    add(
        "--truncated",
        choices=("stop", "keep"),
        default="stop",
        help="truncated images: stop and name them, or keep what can be read of them (default: stop)",
    )
    add = parser.add_argument_group("computation").add_argument
    add("--device", default="auto", help="auto, cpu, cuda, cuda:1, ... (default: auto)")
    add("--batch_size", type=int, metavar="N", help="images that are computed at once (default: 256)")
    add = parser.add_argument_group("output").add_argument
    add("--out", type=Path, metavar="FILE", help="write predicted classes and probabilities as CSV")
    add("--features", type=Path, metavar="FILE", help="write the outputs of the featurizer (.npz)")
    add("--confusion", action="store_true", help="print the numbers of images by true and predicted class")
    add("--export", type=Path, metavar="FILE", help="write the weights (.safetensors), and a .json beside")
    return parser


if __name__ == "__main__":
    run_script(main)

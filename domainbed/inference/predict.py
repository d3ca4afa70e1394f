"""Predicting the classes of image files: the function behind `domainbed.scripts.predict`."""

from __future__ import annotations

import contextlib
import os
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from tqdm import tqdm

from domainbed.datasets.reading_rules import USER_FOLDER, Skipped
from domainbed.errors import UsageError
from domainbed.inference.image_samples import Sample, find_samples
from domainbed.inference.model import Model
from domainbed.inference.results import Consumer, Counts, CsvFile, FeaturesFile, output_file
from domainbed.training.evaluation import BATCH_SIZE


@dataclass(frozen=True)
class PredictedFiles:
    """What was predicted for image files.

    Attributes:
        samples: the images, in order.
        counts: numbers of true and predicted classes.
        skipped: files in the folders that are no images.
        formulas: cells of the CSV file that a spreadsheet would calculate.
    """

    samples: Sequence[Sample]
    counts: Counts
    skipped: Sequence[Skipped]
    formulas: Sequence[str] = ()


def predict_files(
    model: Model,
    images: Sequence[str | os.PathLike[str]],
    out: Path | None = None,
    features: Path | None = None,
    labels: bool = True,
    need_labels: bool = False,
    batch_size: int = BATCH_SIZE,
    consumer: Consumer | None = None,
) -> PredictedFiles:
    """Predict the classes of image files.

    An error leaves no output file behind, and those of an earlier call as they were.

    Args:
        model: one model, or several to average.
        images: see `find_samples`.
        out: file for a line of CSV for each image.
        features: file (.npz) for the outputs of the featurizer. Only for a single model.
        labels: whether names of folders, and labels in lists, are classes.
        need_labels: whether it is an error if no image has a label.
        batch_size: number of images that are computed at once.
        consumer: gets the predictions too.

    Raises: UsageError for images or files that cannot be used; RunError if an image cannot be read, or an
        output cannot be written.
    """
    preprocessing = model.members[0].saved.preprocessing
    rules = USER_FOLDER if preprocessing is None else preprocessing.rules
    found = find_samples([os.fspath(each) for each in images], model.classes, rules, labels)
    samples = found.images
    if not samples:
        raise UsageError("there are no images to predict")
    if need_labels and all(each.label is None for each in samples):
        raise UsageError(
            "--confusion needs the true classes: a folder that has a folder for each class, or a list with "
            "the column label"
        )
    for path in filter(None, (out, features)):
        _refuse_input(path, [*map(str, images), *(each.path for each in samples)])
    counts, table, arrays = Counts(len(model.classes)), None, None
    with contextlib.ExitStack() as stack:
        consumers: list[Consumer] = [counts, *([consumer] if consumer is not None else [])]
        if out is not None:
            table = CsvFile(stack.enter_context(output_file(out)), samples, model.classes)
            consumers.append(table)
        if features is not None:
            arrays = FeaturesFile(stack.enter_context(output_file(features)), samples, model.classes)
            consumers.append(arrays)
        _pass_on(model, samples, consumers, features is not None, batch_size)
        if arrays is not None:
            arrays.finish()
    return PredictedFiles(samples, counts, found.skipped, list(table.formulas) if table is not None else [])


def _pass_on(
    model: Model, samples: Sequence[Sample], consumers: Sequence[Consumer], features: bool, batch_size: int
) -> None:
    """Predict all samples, with a progress bar, and pass each batch to all consumers."""
    start = 0
    with tqdm(desc="predict", total=len(samples), unit="image", leave=False, disable=None) as bar:
        for predictions in model.batches([each.path for each in samples], features, batch_size):
            batch = samples[start : start + len(predictions.labels)]
            for each in consumers:
                each.add(batch, predictions)
            start += len(batch)
            bar.update(len(batch))


def _refuse_input(path: Path, inputs: Sequence[str]) -> None:
    """Check that an output file is not one of the inputs, which it would replace."""
    if path.exists() and any(os.path.samefile(path, each) for each in inputs if os.path.exists(each)):  # noqa: PTH110, PTH121 - many paths
        raise UsageError(f"{path} is one of the images, or their list; choose another name for the output")

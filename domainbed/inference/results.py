"""What becomes of predictions for files: lines of CSV, features in an npz file, counts of correct ones."""

from __future__ import annotations

import contextlib
import zipfile
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import IO, Any, BinaryIO, Protocol

import numpy as np

from domainbed.errors import RunError
from domainbed.escaping import csv_line, encodable, is_formula
from domainbed.files import open_atomic
from domainbed.inference.image_samples import Sample
from domainbed.inference.model import Predictions


class Consumer(Protocol):
    """Takes predictions batch by batch."""

    def add(self, samples: Sequence[Sample], predictions: Predictions) -> None:
        """Take the predictions for `samples`, in order."""


class Counts(Consumer):
    """Counts of true and predicted classes.

    Args:
        n_classes: C.

    Attributes:
        confusion: number of images by true and predicted class, (C, C) int64, of those with a label.
        predicted: number of images by predicted class, (C,) int64, of all.
        correct: group -> number of correct predictions, and of images with a label.
    """

    def __init__(self, n_classes: int) -> None:
        self.confusion = np.zeros((n_classes, n_classes), dtype=np.int64)
        self.predicted = np.zeros(n_classes, dtype=np.int64)
        self.correct: dict[str, tuple[int, int]] = {}

    def add(self, samples: Sequence[Sample], predictions: Predictions) -> None:
        self.predicted += np.bincount(predictions.labels, minlength=len(self.predicted))
        for sample, predicted in zip(samples, predictions.labels.tolist(), strict=True):
            if sample.label is not None:
                self.confusion[sample.label, predicted] += 1
                correct, total = self.correct.get(sample.group, (0, 0))
                self.correct[sample.group] = correct + (sample.label == predicted), total + 1


class CsvFile(Consumer):
    """Writes a line for each image: path, group and label if any is known, predicted class, probabilities.

    Args:
        file: an open binary file.
        samples: all images.
        classes: names of the classes.

    Attributes:
        formulas: cells that a spreadsheet would calculate.
    """

    def __init__(self, file: BinaryIO, samples: Sequence[Sample], classes: Sequence[str]) -> None:
        self.formulas: dict[str, None] = {}
        self._file, self._classes = file, classes
        self._has_groups = any(each.group for each in samples)
        self._has_labels = any(each.label is not None for each in samples)
        about = ["environment"] * self._has_groups + ["label"] * self._has_labels
        self._write(["path", *about, "predicted", "probability", *(f"p_{name}" for name in classes)])

    def add(self, samples: Sequence[Sample], predictions: Predictions) -> None:
        for sample, label, row in zip(
            samples, predictions.labels, predictions.probabilities.tolist(), strict=True
        ):
            true = "" if sample.label is None else self._classes[sample.label]
            about = [sample.group] * self._has_groups + [true] * self._has_labels
            texts = [sample.path, *about, self._classes[label]]
            self.formulas |= dict.fromkeys(filter(is_formula, texts))
            self._write([*texts, *(f"{value:.6g}" for value in (row[label], *row))])

    def _write(self, cells: Sequence[str]) -> None:
        self._file.write(csv_line(cells).encode("utf-8"))


class FeaturesFile(Consumer):
    """Writes `features` (N, D) float32, `paths` (N,), `predicted` (N,), `labels` (N,; -1 for unknown) and
    `classes` (C,) to an npz file, of which only a batch of features is in memory.

    Args:
        file: an open binary file.
        samples: all images.
        classes: names of the classes.
    """

    def __init__(self, file: BinaryIO, samples: Sequence[Sample], classes: Sequence[str]) -> None:
        self._archive = zipfile.ZipFile(file, "w")
        self._samples, self._classes = samples, classes
        self._features: IO[bytes] | None = None
        self._predicted: list[np.ndarray[Any, Any]] = []

    def add(self, samples: Sequence[Sample], predictions: Predictions) -> None:
        assert predictions.features is not None
        values = np.ascontiguousarray(predictions.features, dtype=np.float32)
        if self._features is None:
            self._features = self._archive.open("features.npy", "w", force_zip64=True)
            shape = (len(self._samples), values.shape[1])
            header = {"descr": "<f4", "fortran_order": False, "shape": shape}
            np.lib.format.write_array_header_2_0(self._features, header)
        self._features.write(values.tobytes())
        self._predicted.append(predictions.labels)

    def finish(self) -> None:
        """Write the other arrays, after the last batch."""
        if self._features is not None:
            self._features.close()
        labels = [-1 if each.label is None else each.label for each in self._samples]
        arrays = {
            "paths": np.array([encodable(each.path) for each in self._samples]),
            "predicted": np.concatenate(self._predicted),
            "labels": np.array(labels, dtype=np.int64),
            "classes": np.array(self._classes),
        }
        for name, values in arrays.items():
            with self._archive.open(f"{name}.npy", "w", force_zip64=True) as entry:
                np.lib.format.write_array(entry, values, allow_pickle=False)
        self._archive.close()


@contextlib.contextmanager
def output_file(path: Path) -> Iterator[BinaryIO]:
    """Open a file that replaces `path` at the end of the context, if no error occurs.

    Raises: RunError if it cannot be written.
    """
    try:
        with open_atomic(path) as file:
            yield file
    except OSError as error:
        raise RunError(f"{path} cannot be written: {error.strerror or error}") from error

"""`predictions.npz`: the predictions that a run saved, as compressed arrays that `numpy.load` reads.

| entry | dtype | content |
|---|---|---|
| `about` | text | a JSON object: see `About` |
| `PART/labels` | uint8, 16 or 32 | (N,) labels of the part's samples; PART is a name such as `env0_in` |
| `PART/positions` | uint32 | (N,) positions of the samples in the environment |
| `PART/images` | bytes | (N,) paths of the files, relative to the dataset's folder; missing without files |
| `STEP/PART/predicted` | as labels | (N,) predicted classes after update STEP, decided before rounding |
| `STEP/PART/log_probabilities` | float16 | (N, C); with more than 100 classes (N, 21), see below |
| `STEP/PART/classes` | as labels | (N, 21) their classes, if not all are kept |

With more than `MOST_CLASSES` classes, a row has the `TOP` most probable classes in descending order, and last
the true class, which may be one of them. While a run trains, each step has a file of its own (`step_file`)
with the entries of that step.
"""

from __future__ import annotations

import json
import os
import zipfile
import zlib
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any, TypedDict

import numpy as np

from domainbed.errors import UsageError
from domainbed.files import open_atomic
from domainbed.predictions.content import Arrays, PartPredictions, Predictions

NAME = "predictions.npz"
"""Name of the file in a run's directory."""

STEP_FILES = "predictions_step*.npz"
"""Pattern of the files of single steps."""

MOST_CLASSES = 100
"""Number of classes up to which the log-probabilities of all are kept."""

TOP = 20
"""Number of classes that are kept if there are more."""

FORMAT = 1
"""Version of the format."""

_DATE = (1980, 1, 1, 0, 0, 0)
"""Of each entry, so that equal content makes equal files."""


class About(TypedDict):
    """The entry `about`.

    Attributes:
        format: version of this format.
        dataset, algorithm, test_envs, hparams_seed, trial_seed, seed: the settings of the run.
        classes: names of the classes, in the order of the labels.
        environments: names of the environments.
        parts: name of each part -> index of its environment.
        steps: the saved steps, in ascending order.
        selected: name of a selection rule -> step that it selects, saved or not. Rules that select different
            steps for several targets are left out.
    """

    format: int
    dataset: str
    algorithm: str
    test_envs: list[int]
    hparams_seed: int
    trial_seed: int
    seed: int
    classes: list[str]
    environments: list[str]
    parts: dict[str, int]
    steps: list[int]
    selected: dict[str, int]


def step_file(directory: Path, step: int) -> Path:
    """Path of the file with the predictions after update `step`."""
    return directory / STEP_FILES.replace("*", str(step))


def saved_steps(directory: Path) -> set[int]:
    """The steps that have a file of their own in `directory`."""
    start, end = STEP_FILES.split("*")
    texts = [file.name.removeprefix(start).removesuffix(end) for file in directory.glob(STEP_FILES)]
    return {int(text) for text in texts if text.isdecimal()}


def write_arrays(path: Path, arrays: Iterable[tuple[str, np.ndarray]]) -> None:
    """Write named arrays, one after the other, to a compressed file that replaces `path` when it is complete.

    Raises: OSError.
    """
    with open_atomic(path) as file, zipfile.ZipFile(file, "w", zipfile.ZIP_DEFLATED) as archive:
        for name, array in arrays:
            entry = zipfile.ZipInfo(f"{name}.npy", _DATE)
            entry.compress_type = zipfile.ZIP_DEFLATED
            with archive.open(entry, "w", force_zip64=True) as out:
                np.lib.format.write_array(out, np.asarray(array), allow_pickle=False)


def write_predictions(
    directory: Path,
    about: About,
    samples: Mapping[str, Mapping[str, np.ndarray]],
    steps: Mapping[int, Arrays],
) -> None:
    """Write `predictions.npz`. Steps that are not in memory are read from their files.

    Args:
        directory: the run's directory.
        about: the entry `about`.
        samples: part -> its arrays `labels`, `positions` and perhaps `images`.
        steps: step -> its entries, of steps in memory.

    Raises: OSError.
    """

    def arrays() -> Iterator[tuple[str, np.ndarray]]:
        yield "about", np.array(json.dumps(about))
        for part in about["parts"]:
            for name, array in samples[part].items():
                yield f"{part}/{name}", array
        for step in about["steps"]:
            if step in steps:
                yield from steps[step].items()
            else:
                with np.load(step_file(directory, step), allow_pickle=False) as file:
                    yield from file.items()

    write_arrays(directory / NAME, arrays())


def packed_paths(paths: Iterable[str]) -> np.ndarray:
    """(N,) bytes of paths."""
    return np.array([os.fsencode(path) for path in paths], dtype=np.bytes_)


def smallest_dtype(largest: int) -> np.dtype[Any]:
    """The smallest unsigned integers that hold numbers up to `largest`."""
    return np.min_scalar_type(max(largest, 0))


def read_predictions(run: Path | str) -> Predictions:
    """The predictions that a run saved. Arrays are read when they are asked for.

    Args:
        run: directory of the run, or the file itself.

    Raises: UsageError if there are none, or the file is damaged or of a newer format.
    """
    path = Path(run)
    path = path / NAME if path.is_dir() else path
    entries = _Entries(path)
    about = json.loads(entries.read("about").item())
    if about["format"] != FORMAT:
        raise UsageError(
            f"{path} has format {about['format']!r}, and this version reads format {FORMAT}; use the "
            "version that wrote it"
        )
    return Predictions(path=path, about=about, read=entries.part)


class _Entries:
    """The entries of a file of predictions."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self._samples: dict[str, Arrays] = {}

    def read(self, *names: str) -> Any:  # noqa: ANN401 - one array, or a list of arrays for several names
        """The arrays called `names`; None for one that is missing."""
        try:
            with self._path.open("rb") as opened, np.load(opened, allow_pickle=False) as file:
                found = [file[name] if name in file.files else None for name in names]
        except FileNotFoundError:
            raise UsageError(_missing(self._path)) from None
        except OSError as error:
            raise UsageError(f"{self._path} cannot be read: {error.strerror or error}") from None
        except (
            ValueError,
            KeyError,
            EOFError,
            AttributeError,
            TypeError,
            zipfile.BadZipFile,
            zlib.error,
        ) as error:
            raise UsageError(f"{self._path} is damaged ({error}); train the run again") from None
        if found[0] is None:
            raise UsageError(f"{self._path} is no file of predictions: it has no entry {names[0]}")
        return found[0] if len(names) == 1 else found

    def part(self, about: Mapping[str, Any], part: str, step: int) -> PartPredictions:
        """The predictions for a part, which the file has, after a step, which it has too."""
        names = [f"{step}/{part}/{name}" for name in ("predicted", "log_probabilities", "classes")]
        predicted, log_probabilities, classes = self.read(*names)
        if part not in self._samples:
            labels, positions, images = self.read(
                *(f"{part}/{name}" for name in ("labels", "positions", "images"))
            )
            self._samples[part] = {"labels": labels, "positions": positions}
            if images is not None:
                self._samples[part]["images"] = images
        entries = {"predicted": predicted, "log_probabilities": log_probabilities}
        if classes is not None:
            entries["classes"] = classes
        environment, num_classes = about["parts"][part], len(about["classes"])
        return part_of_arrays(part, environment, step, num_classes, self._samples[part], entries)


def part_of_arrays(
    part: str, environment: int, step: int, num_classes: int, samples: Arrays, entries: Arrays
) -> PartPredictions:
    """Predictions for a part, of arrays as the file has them.

    Args:
        part: name of the part.
        environment: index of its environment.
        step: the step.
        num_classes: C.
        samples: `labels`, `positions` and perhaps `images` of the part.
        entries: `predicted`, `log_probabilities` and perhaps `classes` of the step.
    """
    images, classes = samples.get("images"), entries.get("classes")
    if images is not None:
        images = np.array([os.fsdecode(image) for image in images], dtype=object)
    return PartPredictions(
        name=part,
        environment=environment,
        step=step,
        num_classes=num_classes,
        labels=samples["labels"].astype(np.int64),
        positions=samples["positions"].astype(np.int64),
        images=images,
        predicted=entries["predicted"].astype(np.int64),
        log_probabilities=entries["log_probabilities"],
        classes=None if classes is None else classes.astype(np.int64),
    )


def _missing(path: Path) -> str:
    if any(path.parent.glob(STEP_FILES)) or (path.parent / "checkpoint.pt").exists():
        return (
            f"{path} does not exist yet: the run writes it when it is done; run its command again to resume"
        )
    return f"{path} does not exist: train the run with --save_predictions last, selected or all"

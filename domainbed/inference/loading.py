"""Loading trained models from run directories, model files and exported weights."""

from __future__ import annotations

import dataclasses
import logging
import os
from collections.abc import Sequence
from pathlib import Path

import torch

from domainbed.datasets import REGISTRY
from domainbed.datasets.dataset_preprocessing import preprocessing_by_hparams
from domainbed.datasets.folder_scan import list_folders
from domainbed.datasets.image_transforms import OPTIONS_OF_IMAGES
from domainbed.datasets.preprocessing import Preprocessing
from domainbed.datasets.reading_rules import UPSTREAM, USER_FOLDER
from domainbed.errors import UnknownName, UsageError, check_choice
from domainbed.escaping import encodable
from domainbed.inference.exported import SUFFIX, read_exported
from domainbed.inference.model import Member, Model
from domainbed.training.devices import choose_device
from domainbed.training.model_file import SavedModel, read_model

_log = logging.getLogger(__name__)

MODEL_FILE = "model.pkl"
TRUNCATED = ("stop", "keep")


def load_models(
    models: Sequence[str | os.PathLike[str]],
    device: str = "auto",
    classes: Sequence[str] | str | os.PathLike[str] | None = None,
    truncated: str = "stop",
) -> Model:
    """Load one trained model, or several to average.

    Args:
        models: directories of runs, model files, or files that `export` wrote.
        device: where to compute; "auto" is the machine's accelerator, else the CPU.
        classes: names of the classes for model files of older releases, which lack them: in the order of the
            labels, or the path of a folder that has a folder for each class.
        truncated: "stop" refuses truncated images, "keep" reads them as far as possible.

    Raises: UsageError if a model cannot be read or used, or if the classes of several models differ.
    """
    check_choice("truncated takes", truncated, TRUNCATED)
    found, names = choose_device(device), _class_names(classes)
    with torch.random.fork_rng([]):  # networks are built with random weights first
        saved = [_complete(path, _read(path), names) for path in map(Path, models)]
    if not saved:
        raise UsageError("there is no model to load")
    return Model([Member(each, found, keep_truncated=truncated == "keep") for each in saved])


def model_file(path: Path) -> Path:
    """The file of the model in the run directory `path`, or `path` itself if it is a file.

    Raises: UsageError if there is none.
    """
    if not path.exists():
        raise UsageError(f"model {path} does not exist; pass the directory of a run, or a file {MODEL_FILE}")
    if not path.is_dir():
        return path
    if not (path / MODEL_FILE).is_file():
        state = "" if (path / "done").exists() else "its run is not finished, or "
        raise UsageError(
            f"{path} has no {MODEL_FILE}: {state}it is not the directory of a run, or the run had "
            "--skip_model_save"
        )
    return path / MODEL_FILE


def _read(path: Path) -> SavedModel:
    file = model_file(path)
    return read_exported(file) if file.suffix == SUFFIX else read_model(file)


def _class_names(classes: Sequence[str] | str | os.PathLike[str] | None) -> tuple[str, ...] | None:
    """The names that a user gives: a sequence of them, or a folder that has a folder for each class."""
    if classes is None:
        return None
    given = [os.fspath(classes)] if isinstance(classes, str | os.PathLike) else [*classes]
    if len(given) == 1:
        folder = Path(given[0])
        if not folder.is_dir():
            raise UsageError(f"--classes takes all names, or a folder; {folder} is not a folder")
        given = list_folders(folder, USER_FOLDER).folders
    return tuple(map(encodable, given))


def _complete(path: Path, saved: SavedModel, classes: tuple[str, ...] | None) -> SavedModel:
    """`saved` with what files of older releases lack. `classes` are what the user says."""
    if saved.class_names is not None and classes not in (None, saved.class_names):
        raise UsageError(
            f"model {path} has the classes {', '.join(saved.class_names)}; leave out --classes, which is for "
            "models of older releases"
        )
    names = saved.class_names or classes
    if names is None:
        raise UsageError(
            f"model {path} was written by an older release, without the names of its {saved.num_classes} "
            "classes; give them in the order of the labels, or a folder that has a folder for each class, "
            "with --classes"
        )
    if len(names) != saved.num_classes:
        raise UsageError(f"model {path} has {saved.num_classes} classes, but {len(names)} names are given")
    preprocessing = saved.preprocessing
    if preprocessing is None and saved.version is None:
        preprocessing = _preprocessing_of_older_file(path, saved)
    return dataclasses.replace(saved, class_names=names, preprocessing=preprocessing)


def _preprocessing_of_older_file(path: Path, saved: SavedModel) -> Preprocessing | None:
    """The preprocessing by the name of the dataset and the hyper-parameters, with a note; None if unknown."""
    name, hparams = str(saved.args["dataset"]), saved.algorithm.hparams
    found: Preprocessing | None
    try:
        dataset = REGISTRY[name]
    except UnknownName:
        found, name = preprocessing_by_hparams(hparams, USER_FOLDER), "a folder of images"
    else:
        is_of_files = dataset.READS is OPTIONS_OF_IMAGES
        found = preprocessing_by_hparams(hparams, UPSTREAM) if is_of_files else dataset.PREPROCESSING
    if found is None or found.input_shape != saved.input_shape:
        return None
    _log.warning(
        "note: model %s was written by an older release, without its preprocessing; images are prepared like "
        "those of %s in this release, %d pixels a side",
        path,
        name,
        found.side,
    )
    return found

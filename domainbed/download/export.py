"""Export of the images that are part of the package as a folder tree."""

from __future__ import annotations

import shutil
from pathlib import Path
from typing import TYPE_CHECKING, cast

import numpy as np

from domainbed.datasets.emoji_styles import EmojiStyles
from domainbed.errors import RunError, UsageError, check_choice

if TYPE_CHECKING:
    from domainbed.datasets.uint8_images import UInt8Images

EXPORTED = (EmojiStyles.__name__,)
"""Datasets that can be exported."""

FORMATS = {"png": {}, "jpeg": {"quality": 95}}
"""Image format -> options of PIL's encoder."""


def export(dataset: str, data_dir: Path, image_format: str = "png") -> Path:
    """Write `data_dir/<dataset>/<environment>/<class>/<number>.<format>` and return the dataset's folder.

    Numbers count the images of an environment in the dataset's order. PNG keeps every pixel. If an error
    occurs, no folder is left.

    Raises: UsageError for a dataset without images in the package, or if the folder exists; RunError if the
        folder cannot be written.
    """
    check_choice("--export takes", dataset, EXPORTED)
    check_choice("--format takes", image_format, FORMATS)
    folder = data_dir / dataset
    if folder.exists():
        raise UsageError(f"{folder} already exists; move it away, or use another --data_dir")
    staging = data_dir / f".{dataset}.exporting"
    try:
        if staging.exists():
            shutil.rmtree(staging)
        _write(EmojiStyles(None, [], {}), staging, image_format)
        staging.rename(folder)
    except OSError as error:
        raise RunError(f"{folder} cannot be written: {error}") from error
    finally:
        shutil.rmtree(staging, ignore_errors=True)
    return folder


def _write(dataset: EmojiStyles, folder: Path, image_format: str) -> None:
    from PIL import Image

    suffix = {"jpeg": "jpg"}.get(image_format, image_format)
    environments = cast("list[UInt8Images]", dataset.datasets)
    for name, environment in zip(dataset.ENVIRONMENTS, environments, strict=True):
        for label in dataset.class_names:
            (folder / name / label).mkdir(parents=True)
        # The dataset stores the darkness of pixels.
        images = 255 - environment.images.permute(0, 2, 3, 1).numpy()
        for number, (image, label) in enumerate(zip(images, environment.targets, strict=True)):
            path = folder / name / dataset.class_names[int(label)] / f"{number:04}.{suffix}"
            Image.fromarray(np.ascontiguousarray(image)).save(path, image_format, **FORMATS[image_format])

"""From unpacked archives to the folders that the datasets read, as upstream's download makes them."""

from __future__ import annotations

import json
import shutil
from collections import defaultdict
from collections.abc import Callable
from pathlib import Path

from domainbed.errors import RunError

DUPLICATES = "domain_net_duplicates.txt"
"""Upstream's list of files that are in DomainNet more than once, one path a line."""

_TERRA_PLACES = ("38", "46", "100", "43")
_TERRA_CLASSES = frozenset(
    ("bird", "bobcat", "cat", "coyote", "dog", "empty", "opossum", "rabbit", "raccoon", "squirrel")
)
_TERRA_LISTS = ("cis_test", "cis_val", "train", "trans_test", "trans_val")


def holder(unpacked: Path, holds: tuple[str, ...]) -> Path:
    """The folder nearest to `unpacked` that has all of `holds`, whatever its name (e.g. PACS' `kfold`).

    Raises: RunError if there is none.
    """
    level = [unpacked]
    while level:
        for folder in level:
            if all((folder / name).exists() for name in holds):
                return folder
        level = sorted(inner for folder in level for inner in folder.iterdir() if inner.is_dir())
    found = ", ".join(sorted(path.name for path in unpacked.iterdir())[:6]) or "nothing"
    raise RunError(f"what was fetched has no folder with {', '.join(holds)}; it has {found}")


def without_duplicates(unpacked: Path, holds: tuple[str, ...]) -> Path:
    """DomainNet without the files that upstream's list names; those that are not there are passed over."""
    folder, duplicates = holder(unpacked, holds), unpacked / DUPLICATES
    for line in duplicates.read_text(encoding="utf-8").splitlines():
        path = folder / line.strip()
        if path.is_file() and path.resolve().is_relative_to(folder.resolve()):
            path.unlink()
    duplicates.unlink()
    return folder


def terra_incognita(unpacked: Path, holds: tuple[str, ...]) -> Path:
    """Images of four camera traps and ten classes at `location_<place>/<class>/`, after the annotations.

    An image with several annotations may come under several classes.

    Raises: RunError if an annotated image or one of the five lists is missing.
    """
    images = holder(unpacked, ("eccv_18_all_images_sm",)) / "eccv_18_all_images_sm"
    lists = holder(unpacked, ("eccv_18_annotation_files",)) / "eccv_18_annotation_files"
    tables: dict[str, list[dict[str, str]]] = defaultdict(list)
    for name in _TERRA_LISTS:
        path = lists / f"{name}_annotations.json"
        try:
            content = json.loads(path.read_text(encoding="utf-8"))
            for key in ("images", "annotations", "categories"):
                tables[key] += content[key]
        except (OSError, ValueError, KeyError, TypeError) as error:
            raise RunError(
                f"the list {path.name} cannot be read ({type(error).__name__}: {error})"
            ) from error
    classes = {entry["id"]: entry["name"] for entry in tables["categories"]}
    files = {entry["id"]: entry for entry in tables["images"] if str(entry["location"]) in _TERRA_PLACES}
    wanted = {
        (entry["image_id"], classes[entry["category_id"]])
        for entry in tables["annotations"]
        if entry["image_id"] in files and classes[entry["category_id"]] in _TERRA_CLASSES
    }
    for image, name in sorted(wanted):
        file = files[image]
        folder = unpacked / "arranged" / f"location_{file['location']}" / name
        folder.mkdir(parents=True, exist_ok=True)
        original = images / Path(file["file_name"]).name
        if not original.is_file():
            raise RunError(f"image {original.name} is annotated but missing in {images.name}")
        shutil.copyfile(original, folder / original.name)
    return holder(unpacked / "arranged", holds)


def wilds_release(name: str) -> Callable[[Path, tuple[str, ...]], Path]:
    """How the package wilds leaves a dataset: as unpacked, with an empty file called `name`."""

    def arrange(unpacked: Path, holds: tuple[str, ...]) -> Path:
        folder = holder(unpacked, tuple(each for each in holds if each != name))
        (folder / name).touch()
        return folder

    return arrange

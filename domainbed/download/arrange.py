"""From unpacked archives to the folders that the datasets read, which are those of upstream's download."""

from __future__ import annotations

import shutil
from collections import defaultdict
from collections.abc import Callable
from pathlib import Path

from domainbed.errors import RunError
from domainbed.json_input import parse_json

DUPLICATES = "domain_net_duplicates.txt"
"""Upstream's list of DomainNet's duplicate files, one path per line."""

_TERRA_PLACES = ("38", "46", "100", "43")
_TERRA_CLASSES = {
    "bird",
    "bobcat",
    "cat",
    "coyote",
    "dog",
    "empty",
    "opossum",
    "rabbit",
    "raccoon",
    "squirrel",
}
_TERRA_LISTS = ("cis_test", "cis_val", "train", "trans_test", "trans_val")


def find_folder(unpacked: Path, holds: tuple[str, ...]) -> Path:
    """The folder that contains all of `holds`, e.g. PACS' `kfold`: `unpacked` or the highest one below it.

    Raises: RunError if no folder contains them.
    """
    level = [unpacked]
    while level:
        for folder in level:
            if all((folder / name).exists() for name in holds):
                return folder
        level = sorted(inner for folder in level for inner in folder.iterdir() if inner.is_dir())
    found = ", ".join(sorted(path.name for path in unpacked.iterdir())[:6]) or "nothing"
    raise RunError(
        f"the downloaded files should contain a folder with {', '.join(holds)}, but they contain {found}"
    )


def without_duplicates(unpacked: Path, holds: tuple[str, ...]) -> Path:
    """DomainNet without the existing files that upstream's list names."""
    folder, duplicates = find_folder(unpacked, holds), unpacked / DUPLICATES
    for line in duplicates.read_text(encoding="utf-8").splitlines():
        path = folder / line.strip()
        if path.is_file() and path.resolve().is_relative_to(folder.resolve()):
            path.unlink()
    duplicates.unlink()
    return folder


def terra_incognita(unpacked: Path, holds: tuple[str, ...]) -> Path:
    """Copy the annotated images of four locations and ten classes to `location_<place>/<class>/`.

    An image with several annotations may be copied to several classes.

    Raises: RunError if an annotated image or one of the five annotation files is missing or invalid.
    """
    images = find_folder(unpacked, ("eccv_18_all_images_sm",)) / "eccv_18_all_images_sm"
    lists = find_folder(unpacked, ("eccv_18_annotation_files",)) / "eccv_18_annotation_files"
    tables: dict[str, list[dict[str, str]]] = defaultdict(list)
    for name in _TERRA_LISTS:
        path = lists / f"{name}_annotations.json"
        try:
            content = parse_json(path.read_text(encoding="utf-8"))
            for key in ("images", "annotations", "categories"):
                tables[key] += content[key]
        except (OSError, ValueError, KeyError, TypeError) as error:
            raise RunError(
                f"annotation file {path.name} cannot be read ({type(error).__name__}: {error})"
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
            raise RunError(f"image {original.name} has annotations but is missing in {images.name}")
        shutil.copyfile(original, folder / original.name)
    return find_folder(unpacked / "arranged", holds)


def wilds_release(name: str) -> Callable[[Path, tuple[str, ...]], Path]:
    """An `arrange` function that adds the empty file `name`, by which the package wilds knows a release."""

    def arrange(unpacked: Path, holds: tuple[str, ...]) -> Path:
        folder = find_folder(unpacked, tuple(each for each in holds if each != name))
        (folder / name).touch()
        return folder

    return arrange

"""Inventory of a dataset's folder, for each of the known datasets' formats."""

from __future__ import annotations

import csv
import math
import struct
from collections import Counter
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from pathlib import Path, PurePosixPath

from domainbed.datasets.image_formats import UPSTREAM_SUFFIXES

_IDX_MAGIC = 0x0800  # type "unsigned byte"; the last byte is the number of dimensions


@dataclass(frozen=True)
class Inventory:
    """Contents of a folder according to file names and tables. No image is opened.

    Attributes:
        counts: numbers of samples, by environment or by folder.
        missing: files and folders that are expected but do not exist.
        surplus: images that exist but are not expected.
        unreadable: invalid tables and files.
    """

    counts: Mapping[str, int]
    missing: list[str] = field(default_factory=list)
    surplus: list[str] = field(default_factory=list)
    unreadable: list[str] = field(default_factory=list)


def is_image(path: str) -> bool:
    """Whether `path` has the suffix of an image file."""
    return path.lower().endswith(UPSTREAM_SUFFIXES)


def image_tree(folder: Path, files: Mapping[str, int]) -> Inventory:
    """Folders environment/class/image: counts are those of images below each folder.

    A class folder is missing if another environment has it. Images above the class folders are surplus.

    Args:
        folder: folder of the dataset.
        files: sizes of its files, by path in `folder`. All functions of this kind have these arguments.
    """
    counts: Counter[str] = Counter()
    classes: dict[str, set[str]] = {}
    surplus = []
    for path in filter(is_image, files):
        parts = PurePosixPath(path).parts
        if len(parts) < 3:
            surplus.append(path)
            continue
        classes.setdefault(parts[0], set()).add(parts[1])
        counts.update("/".join(parts[:depth]) for depth in range(1, len(parts)))
    every = set().union(*classes.values())
    missing = [f"{name}/{each}/" for name in sorted(classes) for each in sorted(every - classes[name])]
    return Inventory(dict(sorted(counts.items())), missing, surplus)


def idx_files(folder: Path, files: Mapping[str, int]) -> Inventory:
    """MNIST's IDX files: counts are those of items in each file. Files of a wrong length are unreadable."""
    counts, unreadable = {}, []
    for name, size in files.items():
        with (folder / name).open("rb") as file:
            header = file.read(4 + 4 * 8)
        dimensions = header[3] if len(header) > 3 else 0
        if len(header) < 4 + 4 * dimensions or not 1 <= dimensions <= 8:
            unreadable.append(name)
            continue
        magic, *shape = struct.unpack(f">{1 + dimensions}I", header[: 4 + 4 * dimensions])
        if magic != _IDX_MAGIC + dimensions or size != 4 + 4 * dimensions + math.prod(shape):
            unreadable.append(name)
            continue
        counts[name] = shape[0]
    return Inventory(counts, unreadable=unreadable)


def camelyon17(folder: Path, files: Mapping[str, int]) -> Inventory:
    """WILDS' Camelyon17: counts are those of patches of each hospital in the table `metadata.csv`."""
    counts: Counter[str] = Counter()
    expected = []
    try:
        for row in _rows(folder / "metadata.csv"):
            slide = f"patient_{row['patient']}_node_{row['node']}"
            expected.append(f"patches/{slide}/patch_{slide}_x_{row['x_coord']}_y_{row['y_coord']}.png")
            counts[f"hospital_{row['center']}"] += 1
    except (OSError, KeyError, ValueError, csv.Error):
        return Inventory({}, unreadable=["metadata.csv"])
    return _compare(counts, expected, files)


def fmow(folder: Path, files: Mapping[str, int]) -> Inventory:
    """WILDS' FMoW: counts are those of images of each region in the table `rgb_metadata.csv`.

    Regions are numbered in order of their first occurrence, as in the package wilds. Images of the
    sequestered split ("seq") are not counted, and may exist or not.
    """
    counts: Counter[str] = Counter()
    expected = []
    regions: dict[str, int] = {}
    try:
        region_of = {row["alpha-3"]: row["region"] for row in _rows(folder / "country_code_mapping.csv")}
        for number, row in enumerate(_rows(folder / "rgb_metadata.csv")):
            region = regions.setdefault(region_of.get(row["country_code"], "Other"), len(regions))
            if row["split"] != "seq":
                expected.append(f"images/rgb_img_{number}.png")
                counts[f"region_{region}"] += 1
    except (OSError, KeyError, ValueError, csv.Error):
        return Inventory({}, unreadable=["rgb_metadata.csv or country_code_mapping.csv"])
    sequestered = {path for path in files if path.startswith("images/rgb_img_")}.difference(expected)
    return _compare(counts, expected, [path for path in files if path not in sequestered])


def _compare(counts: Counter[str], expected: list[str], files: Iterable[str]) -> Inventory:
    images = {path for path in files if is_image(path)}
    return Inventory(
        dict(sorted(counts.items())),
        missing=[path for path in expected if path not in images],
        surplus=sorted(images.difference(expected)),
    )


def _rows(path: Path) -> Iterable[dict[str, str]]:
    with path.open(encoding="utf-8", newline="") as file:
        yield from csv.DictReader(file)

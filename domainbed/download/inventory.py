"""What a dataset's folder has and lacks, for each of the formats that the known datasets come in."""

from __future__ import annotations

import csv
import math
import struct
from collections import Counter
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from pathlib import Path, PurePosixPath

from domainbed.datasets.folder_layout import IMAGE_SUFFIXES

_IDX_MAGIC = 0x0800  # unsigned bytes; the last byte is the number of dimensions


@dataclass(frozen=True)
class Inventory:
    """What was found by names and tables alone; no image is opened for it.

    Attributes:
        counts: numbers of samples, by environment or by folder.
        missing: what ought to be there.
        surplus: what ought not to.
        unreadable: tables that make no sense.
    """

    counts: Mapping[str, int]
    missing: list[str] = field(default_factory=list)
    surplus: list[str] = field(default_factory=list)
    unreadable: list[str] = field(default_factory=list)


def is_image(path: str) -> bool:
    """Whether `path` has the suffix of an image."""
    return path.lower().endswith(IMAGE_SUFFIXES)


def image_tree(folder: Path, files: Mapping[str, int]) -> Inventory:
    """Folders environment/class/image: images below each folder; every environment has the same classes.

    Args:
        folder: the dataset's folder.
        files: sizes of its files by path in it, as for all functions of this kind.
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
    """MNIST's format: items in each file, which is as long as its header says."""
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
    """WILDS' Camelyon17: patches of each hospital, and whether those that its table names are there."""
    counts: Counter[str] = Counter()
    expected = []
    try:
        for row in _rows(folder / "metadata.csv"):
            slide = f"patient_{row['patient']}_node_{row['node']}"
            expected.append(f"patches/{slide}/patch_{slide}_x_{row['x_coord']}_y_{row['y_coord']}.png")
            counts[f"hospital_{row['center']}"] += 1
    except (OSError, KeyError, ValueError, csv.Error):
        return Inventory({}, unreadable=["metadata.csv"])
    return _compared(counts, expected, files)


def fmow(folder: Path, files: Mapping[str, int]) -> Inventory:
    """WILDS' FMoW: images of each region, those held back ("seq") left out, and whether they are there.

    Regions are numbered as they first occur in the table, as the package wilds does it.
    """
    counts: Counter[str] = Counter()
    expected = []
    regions: dict[str, int] = {}
    try:
        of_country = {row["alpha-3"]: row["region"] for row in _rows(folder / "country_code_mapping.csv")}
        for number, row in enumerate(_rows(folder / "rgb_metadata.csv")):
            region = regions.setdefault(of_country.get(row["country_code"], "Other"), len(regions))
            if row["split"] != "seq":
                expected.append(f"images/rgb_img_{number}.png")
                counts[f"region_{region}"] += 1
    except (OSError, KeyError, ValueError, csv.Error):
        return Inventory({}, unreadable=["rgb_metadata.csv or country_code_mapping.csv"])
    held_back = {path for path in files if path.startswith("images/rgb_img_")}.difference(expected)
    return _compared(counts, expected, [path for path in files if path not in held_back])


def _compared(counts: Counter[str], expected: list[str], files: Iterable[str]) -> Inventory:
    images = {path for path in files if is_image(path)}
    return Inventory(
        dict(sorted(counts.items())),
        missing=[path for path in expected if path not in images],
        surplus=sorted(images.difference(expected)),
    )


def _rows(path: Path) -> Iterable[dict[str, str]]:
    with path.open(encoding="utf-8", newline="") as file:
        yield from csv.DictReader(file)

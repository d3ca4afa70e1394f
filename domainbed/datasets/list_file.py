"""A dataset in a list of image files: CSV or JSON lines with path, label, environment and perhaps split."""

from __future__ import annotations

import csv
import json
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar

from domainbed.datasets.base import MultipleDomainDataset
from domainbed.datasets.image_files import ImageFiles
from domainbed.datasets.image_transforms import augmenting_transform, input_shape, plain_transform
from domainbed.errors import UsageError, misspelt

SUFFIXES = (".csv", ".jsonl")
PARTS = ("in", "out", "test", "uda")
"""What `split` may say; see `domainbed.training.splits`."""

_COLUMNS = ("path", "label", "environment", "split")
_NEEDED = _COLUMNS[:3]


@dataclass(frozen=True)
class Row:
    """One image: the line it stands on, its file, and its class, environment and part ("" if not said)."""

    line: int
    path: Path
    label: str
    environment: str
    split: str


class ListFileDataset(MultipleDomainDataset):
    """The images of a list file; `list_dataset` makes the class for one.

    Inputs and augmentation are those of a folder of images. Environments and classes are sorted, as
    numbers if all are whole numbers, otherwise as text.

    Attributes:
        PATH: the list.
        ROWS: its rows.
        parts: for each environment, the part of each of its samples ("" where the list does not say).
    """

    CHECKPOINT_FREQ = 300
    NEEDS_DATA = False

    PATH: ClassVar[Path]
    ROWS: ClassVar[Sequence[Row]]

    parts: list[list[str]]

    def __init__(self, root: str | None, test_envs: Sequence[int], hparams: dict[str, Any]) -> None:
        missing = self.missing(root)
        if missing:
            raise UsageError(missing)
        self.input_shape = input_shape(hparams)
        self.class_names = _sorted_names(row.label for row in self.ROWS)
        self.num_classes = len(self.class_names)
        label_of = {name: label for label, name in enumerate(self.class_names)}
        plain, augmenting = plain_transform(hparams), augmenting_transform(hparams)
        self.datasets, self.parts = [], []
        for index, name in enumerate(self.ENVIRONMENTS):
            rows = [row for row in self.ROWS if row.environment == name]
            samples = [(str(row.path), label_of[row.label]) for row in rows]
            augmented = hparams["data_augmentation"] and index not in test_envs
            self.datasets.append(ImageFiles(samples, augmenting if augmented else plain, plain))
            self.parts.append([row.split for row in rows])

    @classmethod
    def missing(cls, root: str | None) -> str | None:
        """Which file the list names in vain, in one line; None if all are there. `root` plays no part."""
        for row in cls.ROWS:
            if not row.path.is_file():
                return f"{cls.PATH}, line {row.line}: there is no file {row.path}"
        return None


def list_dataset(path: Path) -> type[MultipleDomainDataset]:
    """A dataset class for the list `path`, which is read; its images are not looked at.

    Paths in it are relative to its folder.

    Raises: UsageError that names the line.
    """
    rows = read_list(path)
    members = {
        "PATH": path,
        "ROWS": rows,
        "ENVIRONMENTS": _sorted_names(row.environment for row in rows),
        "__doc__": f"The images that {path} lists.",
        "__module__": __name__,
    }
    return type(path.stem, (ListFileDataset,), members)


def read_list(path: Path) -> list[Row]:
    """The rows of a list, in its order; environments all have the same classes, and no path comes twice.

    Raises: UsageError that names the line.
    """
    rows: list[Row] = []
    lines: dict[Path, int] = {}
    try:
        for line, entry in _entries(path):
            row = _row(path, line, entry)
            if row.path in lines:
                raise _at(path, line, f"{entry['path']} stands on line {lines[row.path]} already")
            lines[row.path] = line
            rows.append(row)
    except OSError as error:
        raise UsageError(f"{path} cannot be read: {error.strerror}") from None
    except UnicodeDecodeError as error:
        raise UsageError(f"{path} is not UTF-8 ({error})") from None
    if not rows:
        raise UsageError(f"{path} lists no images; expected are lines with {', '.join(_NEEDED)}")
    _check_classes(path, rows)
    return rows


def _entries(path: Path) -> Iterator[tuple[int, Mapping[str, object]]]:
    """Line number and content of each entry."""
    with path.open(encoding="utf-8-sig", newline="") as file:
        if path.suffix.lower() == ".jsonl":
            for line, text in enumerate(file, start=1):
                if text.strip():
                    yield line, _object(path, line, text)
            return
        reader = csv.DictReader(file, strict=True)
        try:
            _check_columns(path, 1, reader.fieldnames or ())
            for entry in reader:
                if None in entry or None in entry.values():
                    raise _at(
                        path, reader.reader.line_num, f"expected are {len(reader.fieldnames or ())} fields"
                    )
                yield reader.reader.line_num, entry
        except csv.Error as error:
            raise _at(path, reader.reader.line_num, f"this is no CSV ({error})") from None


def _object(path: Path, line: int, text: str) -> Mapping[str, object]:
    try:
        entry = json.loads(text)
    except json.JSONDecodeError as error:
        raise _at(path, line, f"this is no JSON ({error})") from None
    if not isinstance(entry, dict):
        raise _at(path, line, f"expected is an object with {', '.join(_NEEDED)}")
    _check_columns(path, line, entry)
    return entry


def _check_columns(path: Path, line: int, found: Sequence[str] | Mapping[str, object]) -> None:
    for name in _NEEDED:
        if name not in found:
            raise misspelt(f"{path}, line {line}: there is no {name}", name, found)


def _row(path: Path, line: int, entry: Mapping[str, object]) -> Row:
    texts = {}
    for name in _COLUMNS:
        value = entry.get(name, "")
        if isinstance(value, bool) or not isinstance(value, str | int):
            raise _at(path, line, f"{name} must be text or a whole number, not {json.dumps(value)}")
        texts[name] = str(value).strip()
        if name in _NEEDED and not texts[name]:
            raise _at(path, line, f"{name} is empty")
    if texts["split"] not in ("", *PARTS):
        raise _at(path, line, f"split must be one of {', '.join(PARTS)}, not {texts['split']!r}")
    return Row(line, path.parent / texts["path"], texts["label"], texts["environment"], texts["split"])


def _check_classes(path: Path, rows: Sequence[Row]) -> None:
    classes = _sorted_names(row.label for row in rows)
    for name in _sorted_names(row.environment for row in rows):
        inside = {row.label for row in rows if row.environment == name}
        lacking = [each for each in classes if each not in inside]
        if lacking:
            raise UsageError(
                f"{path}: environment {name} lacks {', '.join(lacking[:6])}; all must have the same classes"
            )


def _sorted_names(names: Iterable[str]) -> tuple[str, ...]:
    distinct = set(names)
    if all(name.isdecimal() for name in distinct):
        return tuple(sorted(distinct, key=lambda name: (int(name), name)))
    return tuple(sorted(distinct))


def _at(path: Path, line: int, message: str) -> UsageError:
    return UsageError(f"{path}, line {line}: {message}")

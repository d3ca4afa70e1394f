"""Datasets in a list of image files: CSV or JSON lines with path, label, environment and optionally split."""

from __future__ import annotations

import csv
import json
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar

from domainbed.datasets.base import MultipleDomainDataset
from domainbed.datasets.class_names import lacking_classes
from domainbed.datasets.foreign_lists import conversion_hint
from domainbed.datasets.image_files import ImageFiles
from domainbed.datasets.image_transforms import (
    OPTIONS_OF_IMAGES,
    AugmentingTransform,
    PlainTransform,
    input_shape,
)
from domainbed.datasets.reading_rules import USER_FOLDER
from domainbed.errors import UsageError, misspelt
from domainbed.escaping import encodable, visible
from domainbed.json_input import DuplicateKey, json_without_duplicates

SUFFIXES = (".csv", ".jsonl")
PARTS = ("in", "out", "test", "uda")
"""Valid values of `split`; `domainbed.training.splits` describes the parts."""

_COLUMNS = ("path", "label", "environment", "split")
_REQUIRED = _COLUMNS[:3]
_EVERY = "every environment needs every class, or use --classes union"


@dataclass(frozen=True)
class Row:
    """One image of a list.

    Attributes:
        line: line number in the list.
        path: file of the image.
        label, environment: names of its class and environment; "" if the list need not say.
        split: part that it belongs to, one of `PARTS`, or "" if the list does not say.
    """

    line: int
    path: Path
    label: str
    environment: str
    split: str


class ListFileDataset(MultipleDomainDataset):
    """Base class of datasets named by the path of a list; `list_dataset` creates the class.

    Inputs and augmentation are those of a folder of images. Environments and classes are sorted, as
    numbers if all of them are whole numbers, otherwise as text.

    Attributes:
        PATH: the list.
        ROWS: its rows.
        parts: for each environment, the `split` of each sample.
    """

    READS = OPTIONS_OF_IMAGES
    CHECKPOINT_FREQ = 300
    NEEDS_DATA = False

    PATH: ClassVar[Path]
    ROWS: ClassVar[Sequence[Row]]

    parts: list[list[str]]

    def __init__(self, root: str | None, test_envs: Sequence[int], hparams: dict[str, Any]) -> None:
        missing = self.missing(root)
        if missing:
            raise UsageError(missing)
        self.notes = lacking_classes(_classes(self.ROWS))
        self.input_shape = input_shape(hparams)
        self.class_names = sorted_names(row.label for row in self.ROWS)
        self.num_classes = len(self.class_names)
        label_of = {name: label for label, name in enumerate(self.class_names)}
        plain, augmenting = PlainTransform(hparams), AugmentingTransform(hparams)
        self.datasets, self.parts = [], []
        for index, name in enumerate(self.ENVIRONMENTS):
            rows = [row for row in self.ROWS if row.environment == name]
            samples = [(str(row.path), label_of[row.label]) for row in rows]
            augmented = hparams["data_augmentation"] and index not in test_envs
            self.datasets.append(ImageFiles(samples, augmenting if augmented else plain, plain, USER_FOLDER))
            self.parts.append([row.split for row in rows])

    def keep_samples(self, number: int, positions: Sequence[int]) -> None:
        super().keep_samples(number, positions)
        self.parts[number] = [self.parts[number][position] for position in positions]

    @classmethod
    def missing(cls, root: str | None) -> str | None:
        """One line on classes that environments lack, or the first file of the list that does not exist.

        None if nothing is missing. `root` is ignored.
        """
        lacking = lacking_classes(_classes(cls.ROWS))
        if lacking and cls.SAME_CLASSES:
            return f"{cls.PATH}: environment {'; environment '.join(lacking)}; {_EVERY}"
        for row in cls.ROWS:
            if not row.path.is_file():
                return f"{cls.PATH}, line {row.line}: file {row.path} does not exist"
        return None


def list_dataset(path: Path) -> type[MultipleDomainDataset]:
    """Dataset class for the list `path`. The list is read, its images are not.

    Paths in the list are relative to its folder.

    Raises: UsageError that names the invalid line, or says how to convert a list of another format.
    """
    if path.suffix.lower() not in SUFFIXES:
        raise UsageError(conversion_hint(path))
    rows = read_list(path)
    members = {
        "PATH": path,
        "ROWS": rows,
        "ENVIRONMENTS": sorted_names(row.environment for row in rows),
        "__doc__": f"The images that {visible(str(path))} lists.",
        "__module__": __name__,
    }
    return type(encodable(path.stem), (ListFileDataset,), members)


def read_list(path: Path, required: Sequence[str] = _REQUIRED) -> list[Row]:
    """The rows of a list, in order. Each has the `required` columns.

    Raises: UsageError that names the invalid line.
    """
    rows: list[Row] = []
    lines: dict[Path, int] = {}
    try:
        for line, entry in _entries(path, required):
            row = _parse_row(path, line, entry, required)
            if row.path in lines:
                raise _error(path, line, f"{entry['path']} is already on line {lines[row.path]}")
            lines[row.path] = line
            rows.append(row)
    except OSError as error:
        raise UsageError(f"{path} cannot be read: {error.strerror}") from None
    except UnicodeDecodeError as error:
        raise UsageError(f"{path} is not UTF-8 ({error})") from None
    if not rows:
        raise UsageError(f"{path} lists no images; expected are lines with {', '.join(required)}")
    return rows


def _entries(path: Path, required: Sequence[str]) -> Iterator[tuple[int, Mapping[str, object]]]:
    """Line number and fields of each entry."""
    with path.open(encoding="utf-8-sig", newline="") as file:
        if path.suffix.lower() == ".jsonl":
            for line, text in enumerate(file, start=1):
                if text.strip():
                    yield line, _parse_object(path, line, text, required)
            return
        reader = csv.DictReader(file, strict=True)
        try:
            _check_columns(path, 1, reader.fieldnames or (), required)
            for entry in reader:
                if None in entry or None in entry.values():
                    expected = f"expected are {len(reader.fieldnames or ())} fields, as in line 1"
                    raise _error(path, reader.reader.line_num, expected)
                yield reader.reader.line_num, entry
        except csv.Error as error:
            raise _error(path, reader.reader.line_num, f"not valid CSV ({error})") from None


def _parse_object(path: Path, line: int, text: str, required: Sequence[str]) -> Mapping[str, object]:
    try:
        entry = json_without_duplicates(text)
    except DuplicateKey as error:
        raise _error(path, line, str(error)) from None
    except ValueError as error:
        raise _error(path, line, f"not valid JSON ({error})") from None
    if not isinstance(entry, dict):
        raise _error(path, line, f"expected is a JSON object with {', '.join(required)}")
    _check_columns(path, line, entry, required)
    return entry


def _check_columns(
    path: Path, line: int, found: Sequence[str] | Mapping[str, object], required: Sequence[str]
) -> None:
    for name in required:
        if name not in found:
            raise misspelt(f"{path}, line {line}: {name} is missing", name, found)


def _parse_row(path: Path, line: int, entry: Mapping[str, object], required: Sequence[str]) -> Row:
    texts = {}
    for name in _COLUMNS:
        value = entry.get(name, "")
        if isinstance(value, bool) or not isinstance(value, str | int):
            raise _error(path, line, f"{name} must be text or a whole number, not {json.dumps(value)}")
        texts[name] = str(value).strip()
        if name in required and not texts[name]:
            raise _error(path, line, f"{name} is empty")
    if texts["split"] not in ("", *PARTS):
        raise _error(path, line, f"split must be one of {', '.join(PARTS)}, not {texts['split']!r}")
    return Row(
        line=line,
        path=path.parent / texts["path"],
        label=texts["label"],
        environment=texts["environment"],
        split=texts["split"],
    )


def _classes(rows: Sequence[Row]) -> dict[str, tuple[str, ...]]:
    """The classes of each environment."""
    names = sorted_names(row.environment for row in rows)
    return {name: sorted_names(row.label for row in rows if row.environment == name) for name in names}


def sorted_names(names: Iterable[str]) -> tuple[str, ...]:
    """The distinct `names`, sorted as numbers if all of them are whole numbers, otherwise as text."""
    distinct = set(names)
    if all(name.isdecimal() for name in distinct):
        return tuple(sorted(distinct, key=lambda name: (int(name), name)))
    return tuple(sorted(distinct))


def _error(path: Path, line: int, message: str) -> UsageError:
    return UsageError(f"{path}, line {line}: {message}")

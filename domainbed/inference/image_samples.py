"""The images to predict: files, lists of files, or folders, whose names may be labels."""

from __future__ import annotations

import unicodedata
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from domainbed.console import shortened_list
from domainbed.datasets.folder_scan import list_folders, scan_classes
from domainbed.datasets.list_file import SUFFIXES, read_list
from domainbed.datasets.reading_rules import ReadingRules, Skipped, count_by_reason, text_of_counts
from domainbed.errors import UsageError
from domainbed.escaping import encodable, visible


@dataclass(frozen=True)
class Sample:
    """An image to predict.

    Attributes:
        path: its file.
        label: index of its class; None if unknown.
        group: environment that it belongs to, with its part if a list says so; "" if unknown.
    """

    path: str
    label: int | None = None
    group: str = ""


@dataclass(frozen=True)
class Samples:
    """Images to predict.

    Attributes:
        images: the images, in order.
        skipped: the files that are not read.
    """

    images: Sequence[Sample]
    skipped: Sequence[Skipped]


def find_samples(
    images: Sequence[str], classes: Sequence[str], rules: ReadingRules, labels: bool = True
) -> Samples:
    """The images that a user names.

    Args:
        images: each is an image, a list of images (.csv, .jsonl) with a column path and optionally label,
            environment and split, a folder of images, a folder that has a folder for each class, or a folder
            of such folders, one for each environment.
        classes: names of the model's classes.
        rules: which files of a folder are images.
        labels: whether the names of folders, and the labels of a list, are classes. If not, folders are read
            with all that is below them.

    Raises: UsageError for a path that does not exist, a folder without images, or names that are not classes.
    """
    finder = _Finder(classes, rules, labels)
    found = [sample for path in images for sample in finder.find(Path(path))]
    return Samples(found, finder.skipped)


class _Finder:
    """Finds samples; `skipped` collects the files that are not read."""

    def __init__(self, classes: Sequence[str], rules: ReadingRules, labels: bool) -> None:
        self.skipped: list[Skipped] = []
        self._classes, self._rules, self._labels = classes, rules, labels
        self._labels_of = {name: label for label, name in enumerate(classes)}
        self._composed = {unicodedata.normalize("NFC", name): label for label, name in enumerate(classes)}

    def find(self, path: Path) -> Sequence[Sample]:
        """The samples of one argument."""
        if path.is_dir():
            return self._in_folder(path)
        if not path.exists():
            raise UsageError(
                f"{path} does not exist; pass images, a folder of images, or a list (.csv, .jsonl)"
            )
        return self._in_list(path) if path.suffix.lower() in SUFFIXES else [Sample(str(path))]

    def _in_list(self, path: Path) -> list[Sample]:
        samples = []
        for row in read_list(path, required=("path",)):
            label = None
            if self._labels and row.label:
                label = self._label(row.label)
                if label is None:
                    raise UsageError(
                        f"{path}, line {row.line}: {row.label} is no class of the model ({self._known()})"
                    )
            if not row.path.is_file():
                raise UsageError(f"{path}, line {row.line}: file {row.path} does not exist")
            samples.append(Sample(str(row.path), label, " ".join(filter(None, (row.environment, row.split)))))
        return samples

    def _in_folder(self, folder: Path) -> list[Sample]:
        listing = list_folders(folder, self._rules)
        if not self._labels:
            return self._all_below(folder)
        if listing.misplaced and listing.folders:
            raise UsageError(
                f"{folder} has both images and folders; move one of them away, or use --no_labels to read all"
            )
        if not listing.folders:
            return self._all_below(folder)
        self.skipped += listing.skipped
        if any(self._label(name) is not None for name in listing.folders):
            return self._in_classes(folder, listing.folders)
        inside = {name: list_folders(folder / name, self._rules) for name in listing.folders}
        if any(self._label(name) is not None for each in inside.values() for name in each.folders):
            self.skipped += [skipped for each in inside.values() for skipped in each.skipped]
            return [
                sample
                for name, each in inside.items()
                for sample in self._in_classes(folder / name, each.folders)
            ]
        raise self._other_classes(folder, listing.folders)

    def _in_classes(self, environment: Path, folders: Sequence[str]) -> list[Sample]:
        """The samples of a folder that has a folder for each class."""
        unknown = [name for name in folders if self._label(name) is None]
        if unknown or not folders:
            raise self._other_classes(environment, unknown)
        images, skipped = scan_classes(environment, {name: [name] for name in folders}, self._rules)
        self._check_any(environment, images, skipped)
        group = encodable(environment.resolve().name)
        return [Sample(path, self._label(name), group) for name, paths in images.items() for path in paths]

    def _all_below(self, folder: Path) -> list[Sample]:
        """All images in `folder` and below, without labels."""
        images, skipped = scan_classes(folder, {"": ["."]}, self._rules)
        self._check_any(folder, images, skipped)
        return [Sample(path) for path in images[""]]

    def _check_any(
        self, folder: Path, images: Mapping[str, Sequence[str]], skipped: Sequence[Skipped]
    ) -> None:
        self.skipped += skipped
        if not any(images.values()):
            counts = text_of_counts(count_by_reason(skipped))
            files = f" (its files: {counts})" if counts else ""
            raise UsageError(f"{folder} has no images{files}; expected are {', '.join(self._rules.suffixes)}")

    def _label(self, name: str) -> int | None:
        """Index of the class called `name`; forms of Unicode do not matter where datasets join them."""
        name = encodable(name)
        if name in self._labels_of:
            return self._labels_of[name]
        return self._composed.get(unicodedata.normalize("NFC", name)) if self._rules.joins_names else None

    def _other_classes(self, folder: Path, unknown: Sequence[str]) -> UsageError:
        names = shortened_list([visible(name) for name in unknown], 6) or "no folders"
        return UsageError(
            f"{folder} has {names}, but the classes of the model are {self._known()}; rename the folders, or "
            "use --no_labels to read all images below it without labels"
        )

    def _known(self) -> str:
        return shortened_list([visible(name) for name in self._classes], 6)

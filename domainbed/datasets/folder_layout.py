"""Layout of a folder root/environment/class/image, and precise errors if the folder does not have it.

Hidden files and folders are ignored, and so are other files than images, such as a licence. Each is counted.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from domainbed.datasets.class_names import class_folders, lacking_classes
from domainbed.datasets.folder_scan import Listing, list_folders, scan_classes
from domainbed.datasets.reading_rules import (
    UPSTREAM,
    ReadingRules,
    Skipped,
    count_by_reason,
    text_of_counts,
)
from domainbed.errors import UsageError
from domainbed.escaping import visible

_EXPECTED = "expected are folders root/environment/class with images in each class"


@dataclass(frozen=True)
class Layout:
    """A folder of environments.

    Attributes:
        root: the folder.
        environments: names of its sub-folders, in the order of the environments.
        classes: names of the classes, sorted. A label is an index into them.
        images: for each environment and class, the paths of its images, in the order of torchvision's
            ImageFolder.
        skipped: files and folders that are not read.
        notes: lines about names that were joined and classes that environments lack.
    """

    root: Path
    environments: tuple[str, ...]
    classes: tuple[str, ...]
    images: Mapping[str, Mapping[str, Sequence[str]]]
    skipped: Sequence[Skipped]
    notes: Sequence[str] = ()

    def samples(self, environment: str) -> list[tuple[str, int]]:
        """Path and label of every image of `environment`, in the order of torchvision's ImageFolder."""
        images = self.images[environment]
        return [(path, label) for label, name in enumerate(self.classes) for path in images.get(name, ())]


def read_layout(
    root: Path, expected: Sequence[str] = (), rules: ReadingRules = UPSTREAM, same_classes: bool = True
) -> Layout:
    """The layout of `root`.

    Only files without a suffix are opened, if the rules say so.

    Args:
        root: the folder that contains the environments' folders.
        expected: names of the environments' folders, in order. By default, all sub-folders sorted by name.
        rules: which files are images.
        same_classes: whether every environment must have images of every class.

    Raises: UsageError that says which folders are missing, unexpected, misplaced or without images.
    """
    top = _listing(root, rules)
    environments = _environment_names(root, top, expected)
    listings = {name: _listing(root / name, rules) for name in environments}
    skipped = [*top.skipped, *(each for listing in listings.values() for each in listing.skipped)]
    folders, notes = class_folders({name: listing.folders for name, listing in listings.items()}, rules)
    if same_classes:
        _check_same_classes(root, folders)
    images = {}
    for environment in environments:
        images[environment], below = scan_classes(root / environment, folders[environment], rules)
        skipped += below
        empty = [name for name, paths in images[environment].items() if not paths]
        if empty and (same_classes or len(empty) == len(folders[environment])):
            raise _no_images(root, environment, empty[0], folders, rules, below)
    classes = sorted({name for inside in images.values() for name, paths in inside.items() if paths})
    present = {name: [each for each in classes if inside.get(each)] for name, inside in images.items()}
    notes = [*notes, *lacking_classes(present)]
    return Layout(root, environments, tuple(classes), images, skipped, notes)


def environment_names(
    root: Path, expected: Sequence[str] = (), rules: ReadingRules = UPSTREAM
) -> tuple[str, ...]:
    """Names of the environments' folders in `root`; arguments and errors as for `read_layout`."""
    if not root.is_dir():
        contents = f" that contains the folders {', '.join(expected)}" if expected else ""
        raise UsageError(f"{root} does not exist or is not a folder; expected is a folder{contents}")
    return _environment_names(root, _listing(root, rules), expected)


def skipped_files(root: Path, environments: Sequence[str], rules: ReadingRules = UPSTREAM) -> list[Skipped]:
    """Files in the environments' folders that are not read, whatever layout these have.

    Raises: UsageError for a folder that cannot be read.
    """
    skipped = []
    for name in environments:
        if (root / name).is_dir():
            listing = list_folders(root / name, rules)
            _, below = scan_classes(root / name, {each: [each] for each in listing.folders}, rules)
            skipped += [*listing.skipped, *below]
    return skipped


def _listing(folder: Path, rules: ReadingRules) -> Listing:
    """The folders in `folder`. Raises UsageError if it contains an image."""
    listing = list_folders(folder, rules)
    if listing.misplaced:
        raise UsageError(f"image {folder / listing.misplaced[0]} is where a folder is expected; {_EXPECTED}")
    return listing


def _environment_names(root: Path, listing: Listing, expected: Sequence[str]) -> tuple[str, ...]:
    found = listing.folders
    if not expected:
        if not found:
            raise UsageError(f"{root} has no environments; {_EXPECTED}")
        return tuple(found)
    extra = [name for name in found if name not in expected]
    absent = [name for name in expected if name not in found]
    if extra or absent:
        problems = [f"lacks {_some(absent)}"] if absent else []
        problems += [f"also has {_some(extra)}"] if extra else []
        raise UsageError(
            f"{root} must have the folders {', '.join(expected)} and no others; it {' and '.join(problems)}"
        )
    return tuple(expected)


def _check_same_classes(root: Path, folders: Mapping[str, Mapping[str, Sequence[str]]]) -> None:
    """Raise UsageError if environments have different classes."""
    for name, inside in folders.items():
        if not inside:
            raise UsageError(f"environment {visible(name)} has no class folders in {root}; {_EXPECTED}")
    lacking = lacking_classes(folders)
    if lacking:
        raise UsageError(
            f"the environments of {root} have different classes: {'; '.join(lacking)}; "
            "every environment needs every class, or use --classes union"
        )


def _no_images(
    root: Path,
    environment: str,
    name: str,
    folders: Mapping[str, Mapping[str, Sequence[str]]],
    rules: ReadingRules,
    skipped: Sequence[Skipped],
) -> UsageError:
    places = tuple(str(root / environment / each) for each in folders[environment][name])
    counts = count_by_reason(
        each for each in skipped for place in places if f"{each.path}/".startswith(f"{place}/")
    )
    there = f" (its files: {text_of_counts(counts)})" if counts else ""
    return UsageError(
        f"class {visible(name)} of environment {visible(environment)} has no images in {root}{there}; "
        f"put some there ({', '.join(rules.suffixes)})"
    )


def _some(names: Sequence[str], shown: int = 6) -> str:
    more = f" and {len(names) - shown} more" if len(names) > shown else ""
    return ", ".join(names[:shown]) + more

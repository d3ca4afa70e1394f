"""Scan of a folder root/environment/class: each regular file is an image, or is skipped for one reason."""

from __future__ import annotations

import os
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from domainbed.datasets.reading_rules import TOOL_FOLDERS, ReadingRules, Skipped
from domainbed.errors import UsageError

Identity = tuple[int, int]
"""Device and inode."""


@dataclass
class Listing:
    """The entries of one folder that holds folders.

    Attributes:
        folders: names of its folders, sorted.
        misplaced: names of images in it, sorted.
        skipped: files and folders that are not read.
    """

    folders: list[str] = field(default_factory=list)
    misplaced: list[str] = field(default_factory=list)
    skipped: list[Skipped] = field(default_factory=list)


@dataclass(frozen=True)
class _Found:
    """An image: its folder as accessed, its name, its identity (None if unknown), and if a link led to it."""

    place: str
    name: str
    identity: Identity | None
    linked: bool


def list_folders(folder: Path, rules: ReadingRules) -> Listing:
    """The folders in `folder`, which should contain no images.

    Raises: UsageError if it cannot be read.
    """
    listing = Listing()
    for entry in _entries(str(folder)):
        skipped = _skipped_by_name(entry, rules)
        if skipped is not None:
            listing.skipped.append(skipped)
        elif _is_folder(entry):
            listing.folders.append(entry.name)
        elif not _is_file(entry) and not entry.is_symlink():
            listing.skipped.append(Skipped(entry.path, "special"))
        else:
            reason = rules.reason_to_skip(entry.path, entry.name)
            if reason is None:
                listing.misplaced.append(entry.name)
            else:
                listing.skipped.append(Skipped(entry.path, reason))
    return listing


def scan_classes(
    environment: Path, classes: Mapping[str, Sequence[str]], rules: ReadingRules
) -> tuple[dict[str, list[str]], list[Skipped]]:
    """The images of an environment, and what is skipped in its class folders.

    Links are followed. A link to a folder above it ends there. With `rules.once`, each file is read once: at
    its own place if that is in the environment, otherwise at the first link.

    Args:
        environment: folder of the environment.
        classes: for each class, the names of its folders in `environment`.
        rules: what is an image.

    Returns: for each class, the paths of its images in the order of torchvision's ImageFolder, and the rest.

    Raises: UsageError if a folder cannot be read.
    """
    walk = _Walk(rules)
    for name, folders in classes.items():
        for folder in folders:
            walk.add(name, str(environment / folder))
    return walk.finish()


class _Walk:
    """Collects the images of the classes of one environment."""

    def __init__(self, rules: ReadingRules) -> None:
        self._rules = rules
        self._images: dict[str, list[_Found]] = {}
        self._skipped: list[Skipped] = []
        self._visited: set[Identity] = set()
        self._links: list[tuple[str, str, frozenset[Identity]]] = []

    def add(self, name: str, folder: str) -> None:
        """Add the class folder `folder` to the class `name`."""
        self._images.setdefault(name, [])
        self._enter(name, folder, os.path.islink(folder), folders_above(folder), linked=False)  # noqa: PTH114 - as below

    def finish(self) -> tuple[dict[str, list[str]], list[Skipped]]:
        """Follow the links that wait, and return what `scan_classes` does."""
        while self._links:  # folders come before links to them, so that their files keep their own paths
            name, path, above = self._links.pop(0)
            self._read(name, path, above, linked=True)
        if self._rules.once:
            self._drop_repeated_files()
        paths = {
            name: [os.path.join(each.place, each.name) for each in sorted(found, key=_order)]  # noqa: PTH118 - as below
            for name, found in self._images.items()
        }
        return paths, self._skipped

    def _enter(self, name: str, path: str, is_link: bool, above: frozenset[Identity], linked: bool) -> None:
        """Read the folder `path` now, or later if it is a link and each file is read once."""
        if is_link and self._rules.once:
            self._links.append((name, path, above))
        else:
            self._read(name, path, above, linked or is_link)

    def _read(self, name: str, path: str, above: frozenset[Identity], linked: bool) -> None:
        """Collect the images in the folder `path` and below."""
        identity = _identity(_stat(path))
        if identity is not None:
            if identity in above or (self._rules.once and identity in self._visited):
                self._skipped.append(Skipped(path, "folder_again"))
                return
            self._visited.add(identity)
            above = above | {identity}
        for entry in _entries(path):
            skipped = _skipped_by_name(entry, self._rules)
            if skipped is not None:
                self._skipped.append(skipped)
            elif _is_folder(entry):
                self._enter(name, entry.path, entry.is_symlink(), above, linked)
            else:
                self._add_file(name, path, entry, linked)

    def _add_file(self, name: str, place: str, entry: os.DirEntry[str], linked: bool) -> None:
        is_link = entry.is_symlink()
        if not _is_file(entry) and not (is_link and not os.path.exists(entry.path)):  # noqa: PTH110 - as below
            self._skipped.append(Skipped(entry.path, "special"))
            return
        # A broken link with the name of an image stays: whoever opens it says that its file does not exist.
        reason = self._rules.reason_to_skip(entry.path, entry.name)
        if reason is not None:
            self._skipped.append(Skipped(entry.path, reason))
            return
        identity = None
        if self._rules.once and _is_file(entry):
            identity = _identity(entry.stat())
        self._images[name].append(_Found(place, entry.name, identity, linked or is_link))

    def _drop_repeated_files(self) -> None:
        """Keep each file once: not at a link if possible, otherwise at its first path."""
        keepers: dict[Identity, _Found] = {}
        for found in self._images.values():
            for each in sorted(found, key=_order):
                if each.identity is not None:
                    best = keepers.setdefault(each.identity, each)
                    if best.linked and not each.linked:
                        keepers[each.identity] = each
        for name, found in self._images.items():
            kept = [each for each in found if each.identity is None or keepers[each.identity] is each]
            if len(kept) < len(found):
                chosen = set(map(id, kept))
                self._skipped += [
                    Skipped(os.path.join(each.place, each.name), "same_file")  # noqa: PTH118 - creating a Path for each file is slow
                    for each in found
                    if id(each) not in chosen
                ]
                self._images[name] = kept


def _order(found: _Found) -> tuple[str, str]:
    return found.place, found.name


def _skipped_by_name(entry: os.DirEntry[str], rules: ReadingRules) -> Skipped | None:
    """The entry as skipped if its name alone says so: hidden, or a folder that a tool left."""
    hidden = entry.name.startswith(".")
    if not hidden and not (rules.tool_folders and entry.name in TOOL_FOLDERS):
        return None
    if _is_folder(entry):
        count = 1 if entry.is_symlink() else _count_files(entry.path)
        return Skipped(entry.path, "hidden" if hidden else "tool_folder", count)
    return Skipped(entry.path, "hidden") if hidden else None


def _count_files(folder: str) -> int:
    """Number of files below `folder`; links are not followed."""
    return sum(len(names) for _, _, names in os.walk(folder))


def _entries(folder: str) -> Iterator[os.DirEntry[str]]:
    """The entries of `folder`, sorted by name. Raises UsageError if it cannot be read."""
    try:
        with os.scandir(folder) as entries:
            return iter(sorted(entries, key=lambda entry: entry.name))
    except OSError as error:
        raise UsageError(f"folder {folder} cannot be read: {error.strerror}") from None


def _stat(folder: str) -> os.stat_result:
    try:
        return os.stat(folder)  # noqa: PTH116 - creating a Path for each file is slow
    except OSError as error:
        raise UsageError(f"folder {folder} cannot be read: {error.strerror}") from None


def _identity(stat: os.stat_result) -> Identity | None:
    """Device and inode, or None on a file system without inodes."""
    return (stat.st_dev, stat.st_ino) if stat.st_ino else None


def identity_of(path: str) -> Identity | None:
    """Device and inode of a folder; None on a file system without inodes. Raises UsageError."""
    return _identity(_stat(path))


def folders_above(folder: str) -> frozenset[Identity]:
    """Identities of the folders that contain `folder`, as accessed and at its own place, up to the root."""
    accessed = (
        parent for path in (Path(folder).absolute(), Path(folder).resolve()) for parent in path.parents
    )
    identities = (_identity(_stat(str(parent))) for parent in dict.fromkeys(accessed))
    return frozenset(each for each in identities if each is not None)


def _is_folder(entry: os.DirEntry[str]) -> bool:
    """Whether an entry is a folder or a link to one. A link to itself is none."""
    try:
        return entry.is_dir()
    except OSError:
        return False


def _is_file(entry: os.DirEntry[str]) -> bool:
    try:
        return entry.is_file()
    except OSError:
        return False

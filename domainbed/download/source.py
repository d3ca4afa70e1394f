"""What is declared of a dataset that is fetched: plain records, open to plugins."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path

from domainbed.download.arrange import holder
from domainbed.download.inventory import Inventory, image_tree
from domainbed.download.unpack import Limits


@dataclass(frozen=True)
class File:
    """One file to fetch.

    Attributes:
        name: its name in the data directory until it is unpacked; the suffix says how that is done.
        where: an http(s) URL, "gdown:ID" for Google Drive, or "hand:what to fetch" where only a person can.
        size: number of bytes, where known.
        checksum: "md5:..." or "sha256:..." of the whole file, where known.
    """

    name: str
    where: str
    size: int | None = None
    checksum: str = ""

    def link(self) -> str:
        """Where a person finds it."""
        kind, _, rest = self.where.partition(":")
        if kind == "gdown":
            return f"https://drive.google.com/uc?id={rest}"
        return rest if kind == "hand" else self.where


@dataclass(frozen=True)
class Source:
    """A dataset to fetch. What is not known for certain is left empty, and said to be not known.

    Attributes:
        name: its name.
        files: what is fetched.
        folder: where it lies below the data directory; "." for the data directory itself.
        holds: folders and files that make it up, in `folder`.
        serves: datasets that are built from it; by default one of the same name.
        licence: under which it may be used.
        homepage: where its authors describe it.
        counts: expected numbers, under the names that `inventory` counts by.
        classes: number of folders that each of `holds` has.
        checksum: expected "sha256:..." of the sorted file list (see `verify.file_list`).
        note: anything else that a user should know.
        limits: bounds on what its archives may unpack to.
        arrange: given the folder of the unpacked files and `holds`, makes the folder to install.
        inventory: counts what is there.
    """

    name: str
    files: tuple[File, ...]
    folder: str
    holds: tuple[str, ...]
    serves: tuple[str, ...] = ()
    licence: str = ""
    homepage: str = ""
    counts: Mapping[str, int] = field(default_factory=dict)
    classes: int | None = None
    checksum: str = ""
    note: str = ""
    limits: Limits = field(default_factory=Limits)
    arrange: Callable[[Path, tuple[str, ...]], Path] = holder
    inventory: Callable[[Path, Mapping[str, int]], Inventory] = image_tree

    @property
    def datasets(self) -> tuple[str, ...]:
        """Names of the datasets that are built from it."""
        return self.serves or (self.name,)

    def place(self, data_dir: Path) -> Path:
        """Its folder."""
        return data_dir / self.folder

    def is_there(self, data_dir: Path) -> bool:
        """Whether anything lies where it belongs."""
        place = self.place(data_dir)
        if self.folder == ".":
            return any((place / name).exists() for name in self.holds)
        return place.is_dir() and any(place.iterdir())

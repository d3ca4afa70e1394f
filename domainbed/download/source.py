"""Declaration of a dataset's source: files to download, and what they should become."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path

from domainbed.download.arrange import find_folder
from domainbed.download.inventory import Inventory, image_tree
from domainbed.download.unpack import Limits


@dataclass(frozen=True)
class File:
    """A file to download.

    Attributes:
        name: file name in the data directory, whose suffix determines how the file is unpacked.
        where: an http(s) URL, "gdown:ID" for Google Drive, or "hand:INSTRUCTIONS" for a manual download.
        size: number of bytes, if known.
        checksum: "md5:..." or "sha256:..." of the file, if known.
    """

    name: str
    where: str
    size: int | None = None
    checksum: str = ""

    def link(self) -> str:
        """Where a person finds the file."""
        kind, _, rest = self.where.partition(":")
        if kind == "gdown":
            return f"https://drive.google.com/uc?id={rest}"
        return rest if kind == "hand" else self.where


@dataclass(frozen=True)
class Source:
    """Source of a dataset. Unknown facts are left empty, and reported as not known.

    Attributes:
        name: name of the source.
        files: files to download.
        folder: folder of the dataset in the data directory; "." for the data directory itself.
        holds: folders and files that `folder` must contain.
        serves: names of the datasets that are built from the source. By default, `name`.
        licence: licence of the data.
        homepage: address of the authors' description.
        counts: expected numbers of samples, under the names that `inventory` uses.
        classes: expected number of class folders in each of `holds`.
        checksum: expected "sha256:..." of the manifest (see `manifest.checksum`).
        note: anything else that a user should know.
        part_of: name of the source of which this is a part; a part is installed only if it is named.
        limits: bounds on the unpacked size of the archives.
        arrange: from the folder of unpacked files and `holds`, makes the folder to install.
        inventory: counts the samples of a folder and finds missing and surplus files.
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
    part_of: str = ""
    limits: Limits = field(default_factory=Limits)
    arrange: Callable[[Path, tuple[str, ...]], Path] = find_folder
    inventory: Callable[[Path, Mapping[str, int]], Inventory] = image_tree

    @property
    def datasets(self) -> tuple[str, ...]:
        """Names of the datasets that are built from the source."""
        return self.serves or (self.name,)

    def place(self, data_dir: Path) -> Path:
        """The dataset's folder below `data_dir`."""
        return data_dir / self.folder

    def exists(self, data_dir: Path) -> bool:
        """Whether the dataset's place contains anything."""
        place = self.place(data_dir)
        if self.folder == ".":
            return any((place / name).exists() for name in self.holds)
        return place.is_dir() and any(place.iterdir())

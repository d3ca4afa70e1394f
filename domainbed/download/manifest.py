"""The manifest of a dataset: its files with their sizes, sorted, as they were after the download."""

from __future__ import annotations

import hashlib
import os
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING

from domainbed.datasets.folder_scan import folders_above, identity_of
from domainbed.files import write_atomic

if TYPE_CHECKING:
    from domainbed.download.source import Source


def list_files(folder: Path, holds: tuple[str, ...]) -> dict[str, int]:
    """Size of every file in the entries `holds` of `folder`, by path in `folder`, sorted.

    Hidden files are left out. A broken link has size -1. Links are followed, but not to a folder above them.
    """
    sizes = {name: _size(f"{folder}/{name}") for name in holds if (folder / name).is_file()}
    above = {
        str(folder / name): folders_above(f"{folder / name}/x") for name in holds if (folder / name).is_dir()
    }
    for name in holds:
        for place, inner, names in os.walk(folder / name, followlinks=True):
            inner[:] = [each for each in inner if not each.startswith(".")]
            for each in inner[:]:
                identity = identity_of(f"{place}/{each}")
                if identity is None:
                    above[f"{place}/{each}"] = above[place]
                elif identity in above[place]:
                    inner.remove(each)
                else:
                    above[f"{place}/{each}"] = above[place] | {identity}
            below = Path(place).relative_to(folder).as_posix()
            for each in names:
                if not each.startswith("."):
                    sizes[f"{below}/{each}"] = _size(f"{place}/{each}")
    return dict(sorted(sizes.items()))


def checksum(files: Mapping[str, int]) -> str:
    """ "sha256:..." of the manifest, which has a line "path, tab, size" for each file, sorted."""
    return f"sha256:{hashlib.sha256(_encoded(files)).hexdigest()}"


def read_manifest(source: Source, data_dir: Path) -> dict[str, int] | None:
    """The files that a dataset had when this program downloaded it; None if it did not."""
    path = _manifest_path(source, data_dir)
    if not path.exists():
        return None
    lines = path.read_bytes().decode("utf-8", "surrogateescape").split("\n")
    return {name: int(size) for name, _, size in (line.rpartition("\t") for line in lines if line)}


def write_manifest(source: Source, data_dir: Path, folder: Path) -> None:
    """Write the manifest of the dataset in `folder` as a hidden file of the data directory."""
    write_atomic(_manifest_path(source, data_dir), _encoded(list_files(folder, source.holds)))


def _size(path: str) -> int:
    try:
        return os.stat(path).st_size  # noqa: PTH116 - creating a Path for each file is slow
    except OSError:
        return -1


def _manifest_path(source: Source, data_dir: Path) -> Path:
    return data_dir / f".{source.name}.files"


def _encoded(files: Mapping[str, int]) -> bytes:
    text = "".join(f"{path}\t{files[path]}\n" for path in sorted(files))
    return text.encode("utf-8", "surrogateescape")

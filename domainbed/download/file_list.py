"""The sorted list of a dataset's files, its checksum, and the copy that is kept from the day they arrived."""

from __future__ import annotations

import hashlib
import os
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING

from domainbed.files import write_atomic

if TYPE_CHECKING:
    from domainbed.download.source import Source


def file_list(folder: Path, holds: tuple[str, ...]) -> dict[str, int]:
    """Path in `folder` -> size of every file in `holds` (files and folders), sorted; hidden ones left out."""
    sizes = {name: _size(f"{folder}/{name}") for name in holds if (folder / name).is_file()}
    for name in holds:
        for place, inner, names in os.walk(folder / name, followlinks=True):
            inner[:] = [each for each in inner if not each.startswith(".")]
            below = Path(place).relative_to(folder).as_posix()
            for each in names:
                if not each.startswith("."):
                    sizes[f"{below}/{each}"] = _size(f"{place}/{each}")
    return dict(sorted(sizes.items()))


def checksum(files: Mapping[str, int]) -> str:
    """ "sha256:..." of the sorted file list, which has a line "path, tab, size" for each file."""
    return f"sha256:{hashlib.sha256(_encoded(files)).hexdigest()}"


def kept_list(source: Source, data_dir: Path) -> dict[str, int] | None:
    """The list of a dataset's files as they arrived; None if they did not come through this program."""
    path = _list_path(source, data_dir)
    if not path.exists():
        return None
    lines = path.read_bytes().decode("utf-8", "surrogateescape").split("\n")
    return {name: int(size) for name, _, size in (line.rpartition("\t") for line in lines if line)}


def keep_list(source: Source, data_dir: Path, folder: Path) -> None:
    """Keep the list of the files in `folder`, hidden in the data directory."""
    write_atomic(_list_path(source, data_dir), _encoded(file_list(folder, source.holds)))


def _size(path: str) -> int:
    try:
        return os.stat(path).st_size  # noqa: PTH116 - a Path each is slow
    except OSError:
        return -1  # a link to nowhere, which cannot be read either


def _list_path(source: Source, data_dir: Path) -> Path:
    return data_dir / f".{source.name}.files"


def _encoded(files: Mapping[str, int]) -> bytes:
    text = "".join(f"{path}\t{files[path]}\n" for path in sorted(files))
    return text.encode("utf-8", "surrogateescape")

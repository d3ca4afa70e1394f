"""What is in a dataset's folder, against what was declared and against what was there when it arrived."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from domainbed.download.file_list import checksum, file_list, kept_list
from domainbed.download.images import flawed_images
from domainbed.download.inventory import is_image

if TYPE_CHECKING:
    from domainbed.download.source import Source


@dataclass(frozen=True)
class Report:
    """What was found.

    Attributes:
        counts: numbers of samples by environment or folder.
        checksum: "sha256:..." of the sorted file list.
        as_arrived: whether the files were compared with a list of those that arrived.
        problems: kind of what is wrong ("missing", "surplus", "changed", "unreadable", "wrong number",
            "wrong checksum") -> each instance of it; empty if all is well.
        cut_short: images that end too early; they are read all the same, since a few known ones do.
    """

    counts: Mapping[str, int]
    checksum: str
    as_arrived: bool
    problems: Mapping[str, Sequence[str]]
    cut_short: Sequence[str]

    def line(self) -> str:
        """All that is wrong, in one line."""
        return "; ".join(f"{kind}: {_some(instances)}" for kind, instances in self.problems.items())


def verify(source: Source, data_dir: Path, folder: Path | None = None, open_images: bool = True) -> Report:
    """Compare what is there with what should be.

    Args:
        source: the dataset.
        data_dir: the data directory.
        folder: the dataset's folder, by default where it belongs. Another one has newly arrived: it is
            not compared with the list of an earlier arrival.
        open_images: whether every image is decoded.
    """
    arrived = kept_list(source, data_dir) if folder is None else None
    folder = folder or source.place(data_dir)
    files = file_list(folder, source.holds)
    known = files if arrived is None else arrived
    found = source.inventory(folder, files)
    images = [path for path in files if is_image(path)] if open_images else []
    unreadable, cut_short = flawed_images(folder, images)
    problems = {
        "missing": [
            *(name for name in source.holds if not (folder / name).exists()),
            *found.missing,
            *(path for path in known if path not in files),
        ],
        "surplus": [
            *_stray_folders(source, folder),
            *found.surplus,
            *(path for path in files if path not in known),
        ],
        "changed": [path for path, size in files.items() if known.get(path, size) != size],
        "unreadable": [*found.unreadable, *unreadable],
        "wrong number": _wrong_numbers(source, found.counts),
        "wrong checksum": [f"it should be {source.checksum}"]
        if source.checksum not in ("", checksum(files))
        else [],
    }
    return Report(
        found.counts,
        checksum(files),
        arrived is not None,
        {kind: list(dict.fromkeys(instances)) for kind, instances in problems.items() if instances},
        cut_short,
    )


def _wrong_numbers(source: Source, found: Mapping[str, int]) -> list[str]:
    wrong = [
        f"{name} has {found.get(name, 0):,}, not {count:,}"
        for name, count in source.counts.items()
        if found.get(name, 0) != count
    ]
    if source.classes is not None:
        for name in source.holds:
            classes = sum(each.startswith(f"{name}/") and each.count("/") == 1 for each in found)
            if classes != source.classes:
                wrong.append(f"{name} has {classes} classes, not {source.classes}")
    return wrong


def _stray_folders(source: Source, folder: Path) -> list[str]:
    """Folders that would become environments."""
    if source.folder == "." or not folder.is_dir():
        return []
    inner = (path for path in folder.iterdir() if path.is_dir() and not path.name.startswith("."))
    return sorted(f"{path.name}/" for path in inner if path.name not in source.holds)


def _some(instances: Sequence[str], shown: int = 3) -> str:
    more = f" and {len(instances) - shown:,} more" if len(instances) > shown else ""
    return ", ".join(instances[:shown]) + more

"""Compare a dataset's folder with what its source declares, and with its manifest from the download."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from tqdm import tqdm

from domainbed.cores import cores
from domainbed.datasets.folder_layout import skipped_files
from domainbed.datasets.image_decoding import Finding, UnreadableImage, decode
from domainbed.datasets.reading_rules import Skipped
from domainbed.download.inventory import image_tree, is_image
from domainbed.download.manifest import checksum, list_files, read_manifest

if TYPE_CHECKING:
    from domainbed.download.source import Source

_CHUNK = 1000  # a future for each of half a million images would take half a gigabyte


@dataclass(frozen=True)
class Report:
    """Result of a verification.

    Attributes:
        counts: numbers of samples, by environment or folder.
        checksum: "sha256:..." of the manifest.
        compared_with_manifest: whether the files were compared with those of the download.
        problems: kind of problem ("missing", "surplus", "changed", "unreadable", "wrong number",
            "wrong checksum") -> all its instances. Empty if nothing is wrong.
        truncated: truncated images. They are no problem, because our datasets read them.
        skipped: files that the dataset does not read; None if it does not read folders of images. They are no
            problem.
    """

    counts: Mapping[str, int]
    checksum: str
    compared_with_manifest: bool
    problems: Mapping[str, Sequence[str]]
    truncated: Sequence[str]
    skipped: Sequence[Skipped] | None = None

    def line(self) -> str:
        """All problems in one line."""
        return "; ".join(f"{kind}: {_some(instances)}" for kind, instances in self.problems.items())


def verify(source: Source, data_dir: Path, folder: Path | None = None, open_images: bool = True) -> Report:
    """Verify a dataset.

    Args:
        source: source of the dataset.
        data_dir: the data directory.
        folder: a folder with newly downloaded data, which is not compared with a manifest. By default, the
            dataset's place in the data directory.
        open_images: whether to decode every image.
    """
    manifest = read_manifest(source, data_dir) if folder is None else None
    folder = folder or source.place(data_dir)
    files = list_files(folder, source.holds)
    known = files if manifest is None else manifest
    inventory = source.inventory(folder, files)
    images = [path for path in files if is_image(path)] if open_images else []
    unreadable, truncated = flawed_images(folder, images)
    problems = {
        "missing": [
            *(name for name in source.holds if not (folder / name).exists()),
            *inventory.missing,
            *(path for path in known if path not in files),
        ],
        "surplus": [
            *_extra_folders(source, folder),
            *inventory.surplus,
            *(path for path in files if path not in known),
        ],
        "changed": [path for path, size in files.items() if known.get(path, size) != size],
        "unreadable": [*inventory.unreadable, *unreadable],
        "wrong number": _wrong_numbers(source, inventory.counts),
        "wrong checksum": [f"expected is {source.checksum}"]
        if source.checksum not in ("", checksum(files))
        else [],
    }
    return Report(
        counts=inventory.counts,
        checksum=checksum(files),
        compared_with_manifest=manifest is not None,
        problems={kind: list(dict.fromkeys(instances)) for kind, instances in problems.items() if instances},
        truncated=truncated,
        skipped=skipped_files(folder, source.holds) if source.inventory is image_tree else None,
    )


def _wrong_numbers(source: Source, counts: Mapping[str, int]) -> list[str]:
    wrong = [
        f"{name} has {counts.get(name, 0):,}, not {expected:,}"
        for name, expected in source.counts.items()
        if counts.get(name, 0) != expected
    ]
    if source.classes is not None:
        for name in source.holds:
            classes = sum(each.startswith(f"{name}/") and each.count("/") == 1 for each in counts)
            if classes != source.classes:
                wrong.append(f"{name} has {classes} classes, not {source.classes}")
    return wrong


def _extra_folders(source: Source, folder: Path) -> list[str]:
    """Undeclared folders, which would become environments."""
    if source.folder == "." or not folder.is_dir():
        return []
    inner = (path for path in folder.iterdir() if path.is_dir() and not path.name.startswith("."))
    return sorted(f"{path.name}/" for path in inner if path.name not in source.holds)


def flawed_images(folder: Path, paths: Sequence[str]) -> tuple[list[str], list[str]]:
    """Find unreadable and truncated images. Decodes in threads, with a progress bar on stderr.

    Args:
        folder: folder of the images.
        paths: their paths in `folder`.

    Returns: the paths of images that cannot be decoded, and of those that are truncated but can be.
    """
    unreadable, truncated = [], []
    with (
        ThreadPoolExecutor(cores()) as pool,
        tqdm(None, "reading images", len(paths), unit="image", leave=False, disable=None) as bar,
    ):
        for first in range(0, len(paths), _CHUNK):
            chunk = paths[first : first + _CHUNK]
            findings = pool.map(_finding, [str(folder / path) for path in chunk])
            for path, finding in zip(chunk, findings, strict=True):
                if finding is None:
                    unreadable.append(path)
                elif Finding.TRUNCATED in finding:
                    truncated.append(path)
            bar.update(len(chunk))
    return unreadable, truncated


def _finding(path: str) -> Finding | None:
    """What is found when the image at `path` is decoded; None if that is impossible."""
    try:
        return decode(path).finding
    except UnreadableImage:
        return None


def _some(instances: Sequence[str], shown: int = 3) -> str:
    more = f" and {len(instances) - shown:,} more" if len(instances) > shown else ""
    return ", ".join(instances[:shown]) + more

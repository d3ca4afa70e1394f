"""Which files of a folder are images: upstream's rule for its datasets, and ours for a user's own folder."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping
from dataclasses import dataclass

from domainbed.datasets.image_formats import (
    ALL_SUFFIXES,
    UPSTREAM_SUFFIXES,
    has_no_suffix,
    is_image_by_content,
    is_readable,
)
from domainbed.escaping import visible

REASONS: Mapping[str, str] = {
    "hidden": "hidden",
    "tool_folder": "in folders that tools leave",
    "other_file": "not images",
    "no_decoder": "in formats that need another package (HEIC: pip install pillow-heif)",
    "special": "not regular files",
    "same_file": "links to images that are read already",
    "duplicate": "copies that --duplicates drop leaves out",
    "folder_again": "links to folders that are read already",
}
"""Why a file is not read: name in records -> text after a number."""

TOOL_FOLDERS = ("__MACOSX", "@eaDir", "__pycache__", "$RECYCLE.BIN", "#recycle", "lost+found")
"""Names of folders that tools leave beside images. Those that start with "." are hidden anyway."""


@dataclass(frozen=True)
class Skipped:
    """A file that is not read, or a folder whose files are not read.

    Attributes:
        path: its path.
        reason: a key of `REASONS`.
        count: number of files; of a folder, of all files below it.
    """

    path: str
    reason: str
    count: int = 1

    def line(self) -> str:
        """What is skipped and why, in one line."""
        files = f" ({self.count:,} files)" if self.count != 1 else ""
        return f"{visible(self.path)}{files}: {REASONS[self.reason]}"


@dataclass(frozen=True)
class ReadingRules:
    """Rules by which a file is an image, or is skipped for one reason.

    Attributes:
        suffixes: suffixes of image files, in lower case.
        by_content: whether files without a suffix are recognised by their content.
        once: whether a file that can be reached by several paths is one image of its environment.
        tool_folders: whether `TOOL_FOLDERS` are skipped.
        converts: whether 16-bit, float and transparent images are converted so that no content is lost;
            otherwise as upstream does. See `domainbed.datasets.image_decoding`.
        joins_names: whether names of classes that differ in their Unicode form alone are one class.
    """

    suffixes: tuple[str, ...]
    by_content: bool = False
    once: bool = False
    tool_folders: bool = False
    converts: bool = False
    joins_names: bool = False

    def has_image_name(self, name: str) -> bool:
        """Whether a file is an image by its suffix."""
        return name.lower().endswith(self.suffixes)

    def reason_to_skip(self, path: str, name: str) -> str | None:
        """Why the regular file `name` at `path` is no image; None if it is one."""
        if self.has_image_name(name):
            suffix = next(each for each in self.suffixes if name.lower().endswith(each))
            return None if is_readable(suffix) else "no_decoder"
        if self.by_content and has_no_suffix(name) and is_image_by_content(path):
            return None
        return "other_file"


UPSTREAM = ReadingRules(UPSTREAM_SUFFIXES)
"""For upstream's datasets: torchvision's, except that hidden files and folders are skipped."""

USER_FOLDER = ReadingRules(
    ALL_SUFFIXES, by_content=True, once=True, tool_folders=True, converts=True, joins_names=True
)
"""For folders that a user names by their path."""


def count_by_reason(skipped: Iterable[Skipped]) -> dict[str, int]:
    """Number of skipped files by reason, in the order of `REASONS`."""
    counts: Counter[str] = Counter()
    for each in skipped:
        counts[each.reason] += each.count
    return {reason: counts[reason] for reason in REASONS if counts[reason]}


def text_of_counts(counts: Mapping[str, int]) -> str:
    """Counts by reason as text: "3 hidden, 1 not images"."""
    return ", ".join(f"{count:,} {REASONS[reason]}" for reason, count in counts.items())

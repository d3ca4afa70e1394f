"""Layout of a folder root/environment/class/image, and precise errors if the folder does not have it.

Hidden files and folders are ignored, and so are other files than images, such as a licence.
"""

from __future__ import annotations

import os
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from domainbed.errors import UsageError

IMAGE_SUFFIXES = (".jpg", ".jpeg", ".png", ".ppm", ".bmp", ".pgm", ".tif", ".tiff", ".webp")
"""Suffixes that torchvision's ImageFolder reads."""

_EXPECTED = "expected are folders root/environment/class with images in each class"


@dataclass(frozen=True)
class Layout:
    """A folder of environments that all have the same classes.

    Attributes:
        root: the folder.
        environments: names of its sub-folders, in the order of the environments.
        classes: names of the class folders in each environment, sorted. A label is an index into them.
    """

    root: Path
    environments: tuple[str, ...]
    classes: tuple[str, ...]

    def samples(self, environment: str) -> list[tuple[str, int]]:
        """Path and label of every image of `environment`, in the order of torchvision's ImageFolder.

        Raises: UsageError for a class without images.
        """
        samples = []
        for label, name in enumerate(self.classes):
            paths = _image_paths(self.root / environment / name)
            if not paths:
                raise UsageError(
                    f"class {name} of environment {environment} has no images in {self.root}; "
                    f"put some there ({', '.join(IMAGE_SUFFIXES)})"
                )
            samples += [(path, label) for path in paths]
        return samples


def read_layout(root: Path, expected: Sequence[str] = ()) -> Layout:
    """The layout of `root`, without opening any image.

    Args:
        root: the folder that contains the environments' folders.
        expected: names of the environments' folders, in order. By default, all sub-folders sorted by name.

    Raises: UsageError that says which folders are missing, unexpected or misplaced.
    """
    environments = environment_names(root, expected)
    classes = {name: _subfolders(root / name) for name in environments}
    for name, inside in classes.items():
        if not inside:
            raise UsageError(f"environment {name} has no class folders in {root}; {_EXPECTED}")
    all_classes = sorted(set().union(*classes.values()))
    absent = {name: [each for each in all_classes if each not in inside] for name, inside in classes.items()}
    if any(absent.values()):
        details = "; ".join(f"{name} lacks {_some(lacking)}" for name, lacking in absent.items() if lacking)
        raise UsageError(
            f"the environments of {root} have different classes: {details}; "
            "every environment needs every class"
        )
    return Layout(root=root, environments=environments, classes=tuple(all_classes))


def environment_names(root: Path, expected: Sequence[str] = ()) -> tuple[str, ...]:
    """Names of the environments' folders in `root`; arguments and errors as for `read_layout`."""
    if not root.is_dir():
        contents = f" that contains the folders {', '.join(expected)}" if expected else ""
        raise UsageError(f"{root} does not exist or is not a folder; expected is a folder{contents}")
    found = _subfolders(root)
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


def _subfolders(folder: Path) -> list[str]:
    """Names of the folders in `folder`, sorted. Raises UsageError if it contains an image."""
    try:
        with os.scandir(folder) as listing:
            entries = sorted((entry.name, entry.is_dir()) for entry in listing if not _is_hidden(entry.name))
    except OSError as error:
        raise UsageError(f"folder {folder} cannot be read: {error.strerror}") from None
    for name, is_dir in entries:
        if not is_dir and _is_image(name):
            raise UsageError(f"image {folder / name} is where a folder is expected; {_EXPECTED}")
    return [name for name, is_dir in entries if is_dir]


def _image_paths(folder: Path) -> list[str]:
    """Paths of all images in `folder` and its sub-folders."""
    listings = []
    for place, inner, names in os.walk(folder, onerror=_raise_unreadable, followlinks=True):
        inner[:] = [name for name in inner if not _is_hidden(name)]
        listings.append((place, sorted(name for name in names if _is_image(name) and not _is_hidden(name))))
    return [os.path.join(place, name) for place, names in sorted(listings) for name in names]  # noqa: PTH118 - creating a Path for each file is slow


def _raise_unreadable(error: OSError) -> None:
    raise UsageError(f"folder {error.filename} cannot be read: {error.strerror}") from None


def _is_hidden(name: str) -> bool:
    return name.startswith(".")


def _is_image(name: str) -> bool:
    return name.lower().endswith(IMAGE_SUFFIXES)


def _some(names: Sequence[str], shown: int = 6) -> str:
    more = f" and {len(names) - shown} more" if len(names) > shown else ""
    return ", ".join(names[:shown]) + more

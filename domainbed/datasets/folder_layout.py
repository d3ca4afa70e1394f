"""Reading a folder root/environment/class/image, and saying what is wrong with it.

Hidden files and folders are ignored, and so are files that are no images (a licence, a list of files).
"""

from __future__ import annotations

import os
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from domainbed.errors import UsageError

IMAGE_SUFFIXES = (".jpg", ".jpeg", ".png", ".ppm", ".bmp", ".pgm", ".tif", ".tiff", ".webp")
"""Those of torchvision's ImageFolder."""

_EXPECTED = "expected are folders root/environment/class with images in each class"


@dataclass(frozen=True)
class Layout:
    """A folder of environments that all have the same classes.

    Attributes:
        root: the folder.
        environments: names of its sub-folders, in the environments' order.
        classes: names of the folders in each of them, sorted; a label is an index into them.
    """

    root: Path
    environments: tuple[str, ...]
    classes: tuple[str, ...]

    def samples(self, environment: str) -> list[tuple[str, int]]:
        """Path and label of every image of `environment`, in torchvision's order.

        Raises: UsageError for a class without images.
        """
        found = []
        for label, name in enumerate(self.classes):
            paths = _images_below(self.root / environment / name)
            if not paths:
                raise UsageError(
                    f"class {name} of environment {environment} has no images in {self.root}; "
                    f"put some there ({', '.join(IMAGE_SUFFIXES)})"
                )
            found += [(path, label) for path in paths]
        return found


def read_layout(root: Path, expected: Sequence[str] = ()) -> Layout:
    """The layout of `root`; no image is opened.

    Args:
        root: folder of the environments' folders.
        expected: names that these must have, in the wanted order; by default any, sorted by name.

    Raises: UsageError that says what is missing, surplus or in the wrong place.
    """
    environments = environment_names(root, expected)
    classes = {name: _subfolders(root / name) for name in environments}
    for name, inside in classes.items():
        if not inside:
            raise UsageError(f"environment {name} has no class folders in {root}; {_EXPECTED}")
    every = sorted(set().union(*classes.values()))
    lacking = {name: [each for each in every if each not in inside] for name, inside in classes.items()}
    if any(lacking.values()):
        places = "; ".join(f"{name} lacks {_some(gone)}" for name, gone in lacking.items() if gone)
        raise UsageError(
            f"classes differ between the environments of {root}: {places}; all must have the same"
        )
    return Layout(root, environments, tuple(every))


def environment_names(root: Path, expected: Sequence[str] = ()) -> tuple[str, ...]:
    """Names of the environments' folders in `root`; arguments and errors as for `read_layout`."""
    if not root.is_dir():
        holds = f"a folder with the folders {', '.join(expected)}" if expected else "a folder"
        raise UsageError(f"{root} does not exist or is no folder; expected is {holds}")
    found = _subfolders(root)
    if not expected:
        if not found:
            raise UsageError(f"{root} has no environments; {_EXPECTED}")
        return tuple(found)
    surplus = [name for name in found if name not in expected]
    lacking = [name for name in expected if name not in found]
    if surplus or lacking:
        wrong = [f"lacks {_some(lacking)}"] * bool(lacking) + [f"also has {_some(surplus)}"] * bool(surplus)
        raise UsageError(
            f"{root} must have the folders {', '.join(expected)} and no others; it {' and '.join(wrong)}"
        )
    return tuple(expected)


def _subfolders(folder: Path) -> list[str]:
    """Names of the folders in `folder`, sorted; an image beside them is refused, since it would get lost."""
    try:
        with os.scandir(folder) as listing:
            entries = sorted((entry.name, entry.is_dir()) for entry in listing if not _hidden(entry.name))
    except OSError as error:
        raise UsageError(f"folder {folder} cannot be read: {error.strerror}") from None
    for name, is_dir in entries:
        if not is_dir and _is_image(name):
            raise UsageError(f"image {folder / name} lies where a folder is expected; {_EXPECTED}")
    return [name for name, is_dir in entries if is_dir]


def _images_below(folder: Path) -> list[str]:
    """Paths of all images in `folder` and its sub-folders."""
    paths = []
    for place, inner, names in os.walk(folder, onerror=_refuse, followlinks=True):
        inner[:] = [name for name in inner if not _hidden(name)]
        paths.append((place, sorted(name for name in names if _is_image(name) and not _hidden(name))))
    return [os.path.join(place, name) for place, names in sorted(paths) for name in names]  # noqa: PTH118 - a Path each is slow


def _refuse(error: OSError) -> None:
    raise UsageError(f"folder {error.filename} cannot be read: {error.strerror}") from None


def _hidden(name: str) -> bool:
    return name.startswith(".")


def _is_image(name: str) -> bool:
    return name.lower().endswith(IMAGE_SUFFIXES)


def _some(names: Sequence[str], shown: int = 6) -> str:
    more = f" and {len(names) - shown} more" if len(names) > shown else ""
    return ", ".join(names[:shown]) + more

"""The image formats that datasets in folders and lists may have, by file suffix and by content."""

from __future__ import annotations

import contextlib
import functools
import os
from collections.abc import Mapping

UPSTREAM_SUFFIXES = (".jpg", ".jpeg", ".png", ".ppm", ".bmp", ".pgm", ".tif", ".tiff", ".webp")
"""Suffixes that torchvision's ImageFolder reads."""

SUFFIXES: Mapping[str, tuple[str, ...]] = {
    "JPEG": (".jpg", ".jpeg", ".jpe", ".jfif", ".jfi", ".jif"),
    "PNG": (".png", ".apng"),
    "GIF": (".gif",),
    "WEBP": (".webp",),
    "BMP": (".bmp", ".dib"),
    "TIFF": (".tif", ".tiff"),
    "JPEG2000": (".jp2", ".j2k", ".j2c", ".jpc", ".jpf", ".jpx"),
    "AVIF": (".avif", ".avifs"),
    "PPM": (".ppm", ".pgm", ".pbm", ".pnm", ".pfm"),
    "HEIF": (".heic", ".heif", ".hif"),
}
"""PIL's name of each format -> its suffixes. Of an animation the first frame is read."""

ALL_SUFFIXES = tuple(suffix for suffixes in SUFFIXES.values() for suffix in suffixes)

# What PIL calls a JPEG with several pictures, which its JPEG reader opens, and a BMP without a file header.
_RELATED = ("MPO", "DIB")
_NEEDS_FEATURE = {"WEBP": "webp", "JPEG2000": "jpg_2000", "AVIF": "avif"}
_FORMAT_OF = {suffix: name for name, suffixes in SUFFIXES.items() for suffix in suffixes}


@functools.cache
def readable_formats() -> tuple[str, ...]:
    """PIL's names of the formats in `SUFFIXES` that this installation can decode."""
    from PIL import Image, features

    with contextlib.suppress(ImportError):
        import pillow_heif

        pillow_heif.register_heif_opener()
    Image.init()
    readable = [
        name
        for name in SUFFIXES
        if name in Image.OPEN and (name not in _NEEDS_FEATURE or features.check(_NEEDS_FEATURE[name]))
    ]
    return (*readable, *(name for name in _RELATED if name in Image.OPEN))


def is_readable(suffix: str) -> bool:
    """Whether this installation can decode the format of `suffix`, which is one of `ALL_SUFFIXES`."""
    # Without PIL for the formats that every PIL reads, because scanning a folder should not import it.
    name = _FORMAT_OF[suffix]
    return (name not in _NEEDS_FEATURE and name != "HEIF") or name in readable_formats()


def has_no_suffix(name: str) -> bool:
    """Whether a file is recognised by its content, because its name has no suffix."""
    return os.path.splitext(name)[1] in ("", ".")  # noqa: PTH122 - creating a Path for each file is slow


def is_image_by_content(path: str) -> bool:
    """Whether the file at `path` begins as an image in one of the readable formats."""
    from PIL import Image

    try:
        with Image.open(path, formats=readable_formats()):
            return True
    except Exception:  # PIL raises many unrelated classes for files that are no images
        return False

"""Decoding of image files to RGB, and what that finds: truncation, transparency, more than 8 bits."""

from __future__ import annotations

import enum
import io
import threading
from typing import TYPE_CHECKING, NamedTuple

import numpy as np

from domainbed.datasets.image_formats import readable_formats
from domainbed.datasets.reading_rules import UPSTREAM, ReadingRules
from domainbed.errors import RunError

if TYPE_CHECKING:
    from PIL.Image import Image


class UnreadableImage(RunError):
    """An image file that cannot be decoded.

    If a worker process of torch's loader raises it, the loader raises it again with a whole traceback as its
    message. Only the last line, the original message, is kept.
    """

    def __init__(self, message: str) -> None:
        last_line = message.strip().rpartition("\n")[2]
        super().__init__(last_line.removeprefix(f"{__name__}.{type(self).__name__}: "))


class Finding(enum.IntFlag):
    """What was found when an image was decoded; an array of them is uint8."""

    NOTHING = 0
    TRUNCATED = 1
    """The file ends early or is damaged. Pixels that it lacks are grey, black or transparent."""
    CONSTANT = 2
    """All pixels have one colour."""
    TRANSPARENT = 4
    """Transparent pixels were laid on white."""
    SCALED = 8
    """Pixels of 16 bits, or floats from 0 to 1, were scaled to 8 bits."""

    @property
    def text(self) -> str:
        """What a message says of images with this finding."""
        return _TEXTS[self]


_TEXTS = {
    Finding.TRUNCATED: "are truncated or damaged, and are read as far as possible",
    Finding.CONSTANT: "have one colour only",
    Finding.TRANSPARENT: "have transparent pixels, which are laid on white",
    Finding.SCALED: "have pixels of 16 bits or floats, which are scaled to 8 bits",
}

CONVERTED = Finding.TRANSPARENT | Finding.SCALED
"""Findings of images that releases up to 0.1 decoded to other pixels."""


class Decoded(NamedTuple):
    """An RGB image, and what was found when it was decoded.

    Attributes:
        image: the image.
        finding: what was found.
        contents: `hashes.content_hash` of the bytes that were decoded; None if it was not computed.
    """

    image: Image
    finding: Finding
    contents: bytes | None = None


def read_file(path: str) -> bytes:
    """The bytes of the image file at `path`. Raises UnreadableImage."""
    try:
        with open(path, "rb") as file:  # noqa: PTH123 - creating a Path for each file is slow
            return file.read()
    except OSError as error:
        raise _unreadable(path, error) from error


def decode(path: str, rules: ReadingRules = UPSTREAM, data: bytes | None = None) -> Decoded:
    """The image at `path` in RGB. `data` are the bytes of the file if they were read before.

    With upstream's rules it is converted as upstream does: of pixels of 16 bits only the lowest or highest
    values remain, and transparency is dropped. With `rules.converts` nothing is lost without a finding.

    Raises: UnreadableImage, which names the file.
    """
    allow_truncated_images()
    data = read_file(path) if data is None else data
    try:
        try:
            _SETTING.strict = True
            return _open(_Bytes(data, path), rules)
        finally:
            _SETTING.strict = False
    except UnreadableImage:
        raise
    except Exception:  # PIL raises many unrelated classes for damaged files
        try:
            image, finding, _ = _open(_Bytes(data, path), rules)
        except Exception as error:
            raise _unreadable(path, error) from error
        return Decoded(image, finding | Finding.TRUNCATED)


def _unreadable(path: str, error: Exception) -> UnreadableImage:
    return UnreadableImage(
        f"image {path} cannot be read ({type(error).__name__}: {error}); replace it or delete it"
    )


def conversion(path: str, rules: ReadingRules) -> Finding:
    """The part of an image's finding that is in `CONVERTED`; most images are not decoded for it."""
    from PIL import Image

    try:
        with Image.open(path, formats=readable_formats()) as image:
            if image.mode in ("L", "RGB", "CMYK", "YCbCr", "1") and not image.has_transparency_data:
                return Finding.NOTHING
        return decode(path, rules).finding & CONVERTED
    except Exception:  # whoever reads the image says what is wrong with it
        return Finding.NOTHING


def is_constant(pixels: np.ndarray) -> bool:
    """Whether all pixels of an image (H, W, C) are equal."""
    # In most images the first row and the middle one differ, which takes little time to see.
    if pixels[0].tobytes() != pixels[len(pixels) // 2].tobytes():
        return False
    return bool((pixels[0] == pixels[0, 0]).all() and (pixels == pixels[0, 0]).all())


def allow_truncated_images() -> None:
    """Let PIL decode truncated files, of which some of the known datasets have a few.

    Also called whenever an image is opened, since the setting does not reach spawned worker processes.
    """
    from PIL import ImageFile

    ImageFile.LOAD_TRUNCATED_IMAGES = _SETTING  # type: ignore[assignment] # PIL only asks whether it is true


class _PerThread(threading.local):
    """PIL's setting LOAD_TRUNCATED_IMAGES with a value for each thread: True unless `strict`."""

    strict = False

    def __bool__(self) -> bool:
        return not self.strict


_SETTING = _PerThread()


class _Bytes(io.BytesIO):
    """The bytes of the file at `path`, which PIL's errors name."""

    def __init__(self, data: bytes, path: str) -> None:
        super().__init__(data)
        self.path = path

    def __repr__(self) -> str:
        return repr(self.path)


def _open(file: _Bytes, rules: ReadingRules) -> Decoded:
    from PIL import Image

    with Image.open(file, formats=readable_formats() if rules.converts else None) as image:
        return to_rgb(image, rules, file.path)


def to_rgb(image: Image, rules: ReadingRules = UPSTREAM, name: str = "") -> Decoded:
    """An image of any mode in RGB, converted as `decode` converts the image of a file called `name`.

    Raises: UnreadableImage for values that no rule covers; errors of PIL if it has yet to decode the image.
    """
    from PIL import Image

    if not rules.converts:
        return Decoded(image.convert("RGB"), Finding.NOTHING)
    image.load()
    if image.mode.startswith("I") or image.mode == "F":
        values = _as_uint8(name, np.asarray(image))
        return Decoded(Image.fromarray(values).convert("RGB"), Finding.SCALED)
    if not image.has_transparency_data:
        return Decoded(image.convert("RGB"), Finding.NOTHING)
    with_alpha = image.convert("RGBA")
    if np.asarray(with_alpha.getchannel("A")).min() == 255:
        return Decoded(with_alpha.convert("RGB"), Finding.NOTHING)
    white = Image.new("RGBA", with_alpha.size, "white")
    return Decoded(Image.alpha_composite(white, with_alpha).convert("RGB"), Finding.TRANSPARENT)


def _as_uint8(path: str, values: np.ndarray) -> np.ndarray:
    """Values (H, W), integers from 0 to 65535 or floats from 0 to 1, scaled to uint8 and rounded.

    Raises: UnreadableImage for values outside.
    """
    largest = 1 if values.dtype.kind == "f" else 65535
    low, high = values.min(), values.max()
    if not 0 <= low <= high <= largest:  # also for NaN
        raise UnreadableImage(
            f"image {path} has values from {low} to {high}, but expected are 0 to {largest}; "
            "scale its values, or delete it"
        )
    scaled: np.ndarray = (values * (255 / largest) + 0.5).astype(np.uint8)
    return scaled

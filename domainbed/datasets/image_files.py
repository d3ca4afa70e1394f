"""Environments whose samples are image files on disk."""

from __future__ import annotations

import copy
from collections.abc import Callable, Iterable, Sequence
from typing import TYPE_CHECKING, Any, Self

from domainbed.datasets.hashes import content_hash
from domainbed.datasets.image_decoding import (
    Decoded,
    Finding,
    UnreadableImage,
    allow_truncated_images,
    decode,
    read_file,
)
from domainbed.datasets.image_formats import readable_formats
from domainbed.datasets.reading_rules import UPSTREAM, ReadingRules

if TYPE_CHECKING:
    from PIL.Image import Image

    from domainbed.datasets.base import Environment
else:
    Environment = object  # torch's loaders need no base class, and importing torch takes seconds

Transform = Callable[["Image"], Any]
"""Function from an RGB image to an input of the network."""


class ImageEnvironment(Environment):
    """Map-style dataset of (transformed image, label), which reads an image at each access.

    Args:
        targets: labels of all samples.
        transform: function of an image, with augmentation if there is any; None leaves images unchanged.
        plain_transform: the same without augmentation. By default, `transform`.

    Attributes:
        targets, transform: see above.
        rules: how image files are decoded; None if that is not one of the known ways.
    """

    rules: ReadingRules | None = None

    def __init__(
        self,
        targets: Any,  # noqa: ANN401 - a sequence or a tensor
        transform: Transform | None,
        plain_transform: Transform | None,
    ) -> None:
        allow_truncated_images()
        self.targets = targets
        self.transform = transform
        self._plain_transform = plain_transform or transform

    def __len__(self) -> int:
        return len(self.targets)

    def __getitem__(self, index: int) -> tuple[Any, Any]:
        image = self.image(index)
        return (image if self.transform is None else self.transform(image)), self.targets[index]

    def image(self, index: int) -> Image:
        """Image `index` in RGB. Raises UnreadableImage."""
        raise NotImplementedError

    def decoded(self, index: int) -> Decoded:
        """Image `index` in RGB, what was found when it was decoded, and the hash of its file if known.

        Unlike `image`, it never refuses a truncated image. Raises UnreadableImage.
        """
        return Decoded(self.image(index), Finding.NOTHING)

    def paths(self) -> Sequence[str] | None:
        """Path of each image's file, or None if the paths are unknown."""
        raise NotImplementedError

    def cache_key(self) -> str:
        """Text that differs between environments that decode the same files to other images."""
        return ""

    def plain(self) -> Self:
        """A view of the same samples without augmentation."""
        view = copy.copy(self)
        view.transform = self._plain_transform
        return view


class ImageFiles(ImageEnvironment):
    """Images in files of their own.

    Args:
        samples: path and label of each image.
        transform, plain_transform: see `ImageEnvironment`.
        rules: how files are decoded.

    Attributes:
        samples, rules: see above.
        refuses_truncated: whether `image` raises UnreadableImage for a truncated image.
    """

    rules: ReadingRules
    refuses_truncated = False

    def __init__(
        self,
        samples: Sequence[tuple[str, int]],
        transform: Transform | None = None,
        plain_transform: Transform | None = None,
        rules: ReadingRules = UPSTREAM,
    ) -> None:
        super().__init__([label for _, label in samples], transform, plain_transform)
        self.samples = samples
        self.rules = rules

    def image(self, index: int) -> Image:
        path = self.samples[index][0]
        image, finding, _ = decode(path, self.rules)
        if self.refuses_truncated and Finding.TRUNCATED in finding:
            raise UnreadableImage(
                f"image {path} is truncated or damaged; replace it or delete it, or use --truncated keep to "
                "read it as far as possible"
            )
        return image

    def decoded(self, index: int) -> Decoded:
        if type(self).image is not ImageFiles.image:  # a subclass that decodes by itself
            return super().decoded(index)
        path = self.samples[index][0]
        data = read_file(path)
        image, finding, _ = decode(path, self.rules, data)
        return Decoded(image, finding, content_hash(data))

    def cache_key(self) -> str:
        return "converted" if self.rules.converts else ""

    def paths(self) -> Sequence[str]:
        return [path for path, _ in self.samples]


def open_image(path: str) -> Image:
    """The image at `path` in RGB, as upstream decodes it. Raises UnreadableImage, which names the file."""
    return decode(path).image


def image_size(path: str) -> tuple[int, int]:
    """Width and height of the image at `path`. Raises UnreadableImage."""
    from PIL import Image

    readable_formats()  # registers PIL's plugins
    try:
        with Image.open(path) as image:
            return image.size
    except Exception as error:  # PIL raises many unrelated classes for damaged files
        raise UnreadableImage(
            f"image {path} cannot be read ({type(error).__name__}: {error}); replace it or delete it"
        ) from error


def refuse_truncated_images(environments: Iterable[object]) -> None:
    """Make accesses to truncated images of a user's own files raise UnreadableImage from now on."""
    for environment in environments:
        if isinstance(environment, ImageFiles) and environment.rules.converts:
            environment.refuses_truncated = True

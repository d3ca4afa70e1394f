"""Environments whose samples are image files on disk."""

from __future__ import annotations

import copy
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any

from domainbed.errors import RunError

if TYPE_CHECKING:
    from PIL.Image import Image

    from domainbed.datasets.base import Environment
else:
    Environment = object  # torch's loaders ask for no base class, and importing torch takes seconds

Transform = Callable[["Image"], Any]
"""From an RGB image to an input of the network."""


class UnreadableImage(RunError):
    """An image file that cannot be decoded.

    A worker process of torch's loader raises it anew with a whole traceback as its message; only the
    last line, which is ours, is kept.
    """

    def __init__(self, message: str) -> None:
        last_line = message.strip().rpartition("\n")[2]
        super().__init__(last_line.removeprefix(f"{__name__}.{type(self).__name__}: "))


class ImageFiles(Environment):
    """Map-style dataset of (transformed image, label), read from disk at each access.

    Args:
        samples: path and label of each image.
        transform: what is done to an image, by default nothing.
        plain_transform: the same without augmentation, by default `transform`.

    Attributes:
        samples: as given.
        targets: the labels, known without opening an image.
        transform: as given.
    """

    def __init__(
        self,
        samples: Sequence[tuple[str, int]],
        transform: Transform | None = None,
        plain_transform: Transform | None = None,
    ) -> None:
        tolerate_truncated()
        self.samples = samples
        self.targets = [label for _, label in samples]
        self.transform = transform
        self._plain_transform = plain_transform or transform

    def __len__(self) -> int:
        return len(self.samples)

    def __getitem__(self, index: int) -> tuple[Any, Any]:
        path, label = self.samples[index]
        image = open_image(path)
        return (image if self.transform is None else self.transform(image)), label

    def plain(self) -> ImageFiles:
        """The same samples without augmentation."""
        view = copy.copy(self)
        view.transform = self._plain_transform
        return view


def open_image(path: str) -> Image:
    """The image at `path` in RGB.

    Raises: UnreadableImage, which names the file.
    """
    from PIL import Image

    tolerate_truncated()
    try:
        with Image.open(path) as image:
            return image.convert("RGB")
    except Exception as error:  # damaged files make PIL raise a dozen unrelated classes
        raise UnreadableImage(
            f"image {path} cannot be read ({type(error).__name__}: {error}); replace it or delete it"
        ) from error


def tolerate_truncated() -> None:
    """Let PIL decode files that end too early, of which some of the known datasets have a few.

    Called again where images are opened: a worker process may have been started afresh.
    """
    from PIL import ImageFile

    ImageFile.LOAD_TRUNCATED_IMAGES = True

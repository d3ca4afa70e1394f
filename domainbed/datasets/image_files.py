"""Environments whose samples are image files on disk."""

from __future__ import annotations

import contextlib
import copy
from collections.abc import Callable, Iterator, Sequence
from typing import TYPE_CHECKING, Any, Self

from domainbed.errors import RunError

if TYPE_CHECKING:
    from PIL.Image import Image

    from domainbed.datasets.base import Environment
else:
    Environment = object  # torch's loaders need no base class, and importing torch takes seconds

Transform = Callable[["Image"], Any]
"""Function from an RGB image to an input of the network."""


class UnreadableImage(RunError):
    """An image file that cannot be decoded.

    If a worker process of torch's loader raises it, the loader raises it again with a whole traceback as its
    message. Only the last line, the original message, is kept.
    """

    def __init__(self, message: str) -> None:
        last_line = message.strip().rpartition("\n")[2]
        super().__init__(last_line.removeprefix(f"{__name__}.{type(self).__name__}: "))


class ImageEnvironment(Environment):
    """Map-style dataset of (transformed image, label), which reads an image at each access.

    Args:
        targets: labels of all samples.
        transform: function of an image, with augmentation if there is any; None leaves images unchanged.
        plain_transform: the same without augmentation. By default, `transform`.

    Attributes:
        targets, transform: see above.
    """

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

    def paths(self) -> Sequence[str] | None:
        """Path of each image's file, or None if the paths are unknown."""
        raise NotImplementedError

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

    Attributes:
        samples: see above.
    """

    def __init__(
        self,
        samples: Sequence[tuple[str, int]],
        transform: Transform | None = None,
        plain_transform: Transform | None = None,
    ) -> None:
        super().__init__([label for _, label in samples], transform, plain_transform)
        self.samples = samples

    def image(self, index: int) -> Image:
        return open_image(self.samples[index][0])

    def paths(self) -> Sequence[str]:
        return [path for path, _ in self.samples]


def open_image(path: str) -> Image:
    """The image at `path` in RGB. Raises UnreadableImage, which names the file."""
    with _opened(path) as image:
        return image.convert("RGB")


def image_size(path: str) -> tuple[int, int]:
    """Width and height of the image at `path`. Raises UnreadableImage."""
    with _opened(path) as image:
        return image.size


@contextlib.contextmanager
def _opened(path: str) -> Iterator[Image]:
    from PIL import Image

    allow_truncated_images()
    try:
        with Image.open(path) as image:
            yield image
    except Exception as error:  # PIL raises many unrelated classes for damaged files
        raise UnreadableImage(
            f"image {path} cannot be read ({type(error).__name__}: {error}); replace it or delete it"
        ) from error


def allow_truncated_images() -> None:
    """Let PIL decode truncated files, of which some of the known datasets have a few.

    Also called whenever an image is opened, since the setting does not reach spawned worker processes.
    """
    from PIL import ImageFile

    ImageFile.LOAD_TRUNCATED_IMAGES = True

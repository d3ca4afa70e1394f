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


class ImageEnvironment(Environment):
    """Map-style dataset of (transformed image, label), whose images are read at each access.

    Args:
        targets: the labels, known without opening an image.
        transform: what is done to an image, by default nothing.
        plain_transform: the same without augmentation, by default `transform`.

    Attributes:
        targets, transform: as given.
    """

    def __init__(
        self,
        targets: Any,  # noqa: ANN401 - a sequence or a tensor
        transform: Transform | None,
        plain_transform: Transform | None,
    ) -> None:
        tolerate_truncated()
        self.targets = targets
        self.transform = transform
        self._plain_transform = plain_transform or transform

    def __len__(self) -> int:
        return len(self.targets)

    def __getitem__(self, index: int) -> tuple[Any, Any]:
        image = self.image(index)
        return (image if self.transform is None else self.transform(image)), self.targets[index]

    def image(self, index: int) -> Image:
        """The image at a position, in RGB; raises UnreadableImage."""
        raise NotImplementedError

    def paths(self) -> Sequence[str] | None:
        """The files of the images, one each; None if they are not known."""
        raise NotImplementedError

    def plain(self) -> Self:
        """The same samples without augmentation."""
        view = copy.copy(self)
        view.transform = self._plain_transform
        return view


class ImageFiles(ImageEnvironment):
    """Image files on disk.

    Args:
        samples: path and label of each image.
        transform, plain_transform: see `ImageEnvironment`.

    Attributes:
        samples: as given.
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
    """The image at `path` in RGB.

    Raises: UnreadableImage, which names the file.
    """
    with _opened(path) as image:
        return image.convert("RGB")


def image_size(path: str) -> tuple[int, int]:
    """Width and height of the image at `path`; raises UnreadableImage."""
    with _opened(path) as image:
        return image.size


@contextlib.contextmanager
def _opened(path: str) -> Iterator[Image]:
    from PIL import Image

    tolerate_truncated()
    try:
        with Image.open(path) as image:
            yield image
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

"""From an image file to an input of the network: size, augmentation, normalisation."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any, ClassVar

import numpy as np

from domainbed.datasets.preprocessing import resized
from domainbed.hparams import OPTIONS, Hparam, Reader, const, option

if TYPE_CHECKING:
    from PIL.Image import Image
    from torch import Tensor

    from domainbed.datasets.image_files import Transform

OPTIONS["input_size"] = Hparam(
    224,
    const(224),
    "side of the images that the network sees, in pixels",
    at_least=1,
    reader=Reader.DATASET,
)
OPTIONS["stored_size"] = Hparam(
    0,
    const(0),
    "first resize images to this side, as if they were stored so (0: off; 227 in the ICCV 2021 code)",
    at_least=0,
    reader=Reader.DATASET,
)
OPTIONS["reencode"] = Hparam(
    False,
    const(False),
    "pass stored images through JPEG of quality 75, as the ICCV 2021 code did on disk",
    reader=Reader.DATASET,
)
OPTIONS["augmentation"] = Hparam(
    "tensor",
    const("tensor"),
    "tensor: many decoded images at once; pil: file by file with torchvision, as upstream does",
    choices=("tensor", "pil"),
    reader=Reader.DATASET,
)
OPTIONS["augment_evaluation"] = Hparam(
    True, const(True), "evaluate source environments on augmented images, as upstream does"
)

OPTIONS_OF_IMAGES = ("input_size", "stored_size", "reencode", "augmentation")
"""Optional hyper-parameters that the transforms of image files read, for `READS` of a dataset."""

IMAGENET_MEAN = (0.485, 0.456, 0.406)
IMAGENET_STD = (0.229, 0.224, 0.225)

CACHED_SCALE = 1.5
"""Largest shorter side of a cached image that will be cropped, as a multiple of the input's side."""


def input_shape(hparams: Mapping[str, Any]) -> tuple[int, int, int]:
    """(3, side, side) of an input."""
    side = int(option(hparams, "input_size"))
    return 3, side, side


class PlainTransform:
    """Resize an RGB image and normalise it by ImageNet's mean and standard deviation.

    Args:
        hparams: hyper-parameters; `input_size`, `stored_size` and `reencode` are used.

    Attributes:
        side: side of an input (3, side, side).
        stored_size, reencode: see `preprocessing.resized`.
        mean, std: of the normalisation, a value for each channel.
        planar: whether `cached_pixels` returns channels first.
    """

    planar: ClassVar[bool] = True
    mean: tuple[float, ...] = IMAGENET_MEAN
    std: tuple[float, ...] = IMAGENET_STD

    def __init__(self, hparams: Mapping[str, Any]) -> None:
        from torchvision import transforms

        self.side = input_shape(hparams)[1]
        self.stored_size = int(option(hparams, "stored_size"))
        self.reencode = bool(option(hparams, "reencode"))
        self._resize = True
        normalize = transforms.Normalize(self.mean, self.std)
        self._to_input = transforms.Compose([transforms.ToTensor(), normalize])

    def __call__(self, image: Image) -> Tensor:
        x: Tensor = self._to_input(self.before_augmentation(image))
        return x

    def before_augmentation(self, image: Image) -> Image:
        """The image after the deterministic steps, which come before the random ones."""
        return resized(image, self.side if self._resize else 0, self.stored_size, self.reencode)

    def cached(self, image: Image) -> Image:
        """The image that a cache stores: after `before_augmentation`, and reduced to `cached_size`."""
        from PIL.Image import Resampling

        image = self.before_augmentation(image)
        size = self.cached_size(image.size)
        # Lanczos removes little more than what an input is too coarse to show.
        return image if size == image.size else image.resize(size, Resampling.LANCZOS, reducing_gap=None)

    def cached_size(self, size: tuple[int, int]) -> tuple[int, int]:
        """Width and height of the cached image for an image file of width and height `size`."""
        if self._resize:
            return self.side, self.side
        if self.stored_size:
            size = self.stored_size, self.stored_size
        factor = min(1.0, CACHED_SCALE * self.side / min(size))
        return round(factor * size[0]), round(factor * size[1])

    @property
    def fixed_size(self) -> tuple[int, int] | None:
        """Width and height of every cached image, if they do not depend on the image file."""
        return self.cached_size((1, 1)) if self._resize or self.stored_size else None

    def cached_pixels(self, image: Image) -> np.ndarray:
        """Pixels of the cached image: uint8 of shape (H, W, 3), or (3, H, W) if `planar`."""
        return self.arranged(np.asarray(self.cached(image)))

    def arranged(self, pixels: np.ndarray) -> np.ndarray:
        """Pixels (H, W, 3) as a cache stores them: as they are, or (3, H, W) if `planar`."""
        return pixels.transpose(2, 0, 1) if self.planar else pixels

    def cache_key(self) -> str:
        """Text that differs between transforms whose cached images differ."""
        steps = {
            "side": self.side,
            "planar": self.planar,
            "_stored_size": self.stored_size,  # the names of earlier releases, whose caches remain valid
            "_reencode": self.reencode,
            "_resize": self._resize,
        }
        return " ".join([f"kept={CACHED_SCALE}", *(f"{name}={value}" for name, value in steps.items())])


class AugmentingTransform(PlainTransform):
    """Upstream's augmentation with torchvision on PIL images, then normalisation.

    Random crop, horizontal flip, colour jitter and greyscale.

    Args:
        hparams: hyper-parameters; `input_size`, `stored_size`, `reencode` and `augmentation` are used.
        resize: resize to the input size before the random steps (WILDS, Spawrious).
        crop: take a random crop of 70 to 100 % of the area (all datasets but Spawrious).

    Attributes:
        crop: see above.
        by_tensors: whether `domainbed.images.augmentation` may be used instead.
    """

    planar = False

    def __init__(self, hparams: Mapping[str, Any], resize: bool = False, crop: bool = True) -> None:
        from torchvision import transforms

        super().__init__(hparams)
        self._resize = resize
        self.crop = crop
        self.by_tensors = option(hparams, "augmentation") == "tensor"
        size = (self.side, self.side)
        steps: list[Transform] = [transforms.RandomResizedCrop(size, scale=(0.7, 1.0))] if crop else []
        steps += [
            transforms.RandomHorizontalFlip(),
            transforms.ColorJitter(0.3, 0.3, 0.3, 0.3),
            transforms.RandomGrayscale(),
        ]
        self._augment = transforms.Compose(steps)

    def __call__(self, image: Image) -> Tensor:
        x: Tensor = self._to_input(self._augment(self.before_augmentation(image)))
        return x

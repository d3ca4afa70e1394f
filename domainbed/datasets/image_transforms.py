"""From an image file to an input of the network: size, augmentation, normalisation (`spec`, 3.5)."""

from __future__ import annotations

import io
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any, ClassVar

import numpy as np

from domainbed.hparams import OPTIONS, Hparam, const, option

if TYPE_CHECKING:
    from PIL.Image import Image
    from torch import Tensor

    from domainbed.datasets.image_files import Transform

OPTIONS["input_size"] = Hparam(
    224, const(224), "side of the images that the network sees, in pixels", at_least=1
)
OPTIONS["stored_size"] = Hparam(
    0,
    const(0),
    "first resize images to this side, as if they were stored so (0: off; 227 in the ICCV 2021 code)",
    at_least=0,
)
OPTIONS["reencode"] = Hparam(
    False, const(False), "pass stored images through JPEG of quality 75, as the ICCV 2021 code did on disk"
)
OPTIONS["augmentation"] = Hparam(
    "tensor",
    const("tensor"),
    "tensor: many decoded images at once; pil: file by file with torchvision, as upstream does",
    choices=("tensor", "pil"),
)
OPTIONS["augment_evaluation"] = Hparam(
    True, const(True), "evaluate source environments on augmented images, as upstream does"
)

IMAGENET_MEAN = (0.485, 0.456, 0.406)
IMAGENET_STD = (0.229, 0.224, 0.225)

KEPT = 1.5
"""Shorter side of a decoded image that is kept to be cropped, in sides of the input, at most."""


def input_shape(hparams: Mapping[str, Any]) -> tuple[int, int, int]:
    """(3, side, side) of an input."""
    side = int(option(hparams, "input_size"))
    return 3, side, side


class PlainTransform:
    """Resize, to a float32 tensor, normalise by ImageNet's mean and standard deviation.

    Called with an RGB image, it gives an input (3, side, side).

    Attributes:
        side: of an input.
        planar: whether `kept_bytes` has the channels one after the other.
    """

    planar: ClassVar[bool] = True

    def __init__(self, hparams: Mapping[str, Any]) -> None:
        from torchvision import transforms

        self.side = input_shape(hparams)[1]
        self._stored_size = int(option(hparams, "stored_size"))
        self._reencode = bool(option(hparams, "reencode"))
        self._resize = True
        normalize = transforms.Normalize(IMAGENET_MEAN, IMAGENET_STD)
        self._to_input = transforms.Compose([transforms.ToTensor(), normalize])

    def __call__(self, image: Image) -> Tensor:
        x: Tensor = self._to_input(self.before_chance(image))
        return x

    def before_chance(self, image: Image) -> Image:
        """The image as it is before anything random happens to it."""
        from torchvision.transforms import functional

        if self._stored_size:
            image = functional.resize(image, [self._stored_size, self._stored_size])
        if self._reencode:
            image = JpegPass(quality=75)(image)
        return functional.resize(image, [self.side, self.side]) if self._resize else image

    def kept(self, image: Image) -> Image:
        """The image as a cache keeps it: `before_chance`, reduced where it is larger than `kept_size`."""
        from PIL.Image import Resampling

        image = self.before_chance(image)
        size = self.kept_size(image.size)
        # This filter takes away little but what the input is too coarse to show.
        return image if size == image.size else image.resize(size, Resampling.LANCZOS, reducing_gap=None)

    def kept_size(self, size: tuple[int, int]) -> tuple[int, int]:
        """Width and height of what is kept of an image of width and height `size`."""
        if self._resize:
            return self.side, self.side
        if self._stored_size:
            size = self._stored_size, self._stored_size
        factor = min(1.0, KEPT * self.side / min(size))
        return round(factor * size[0]), round(factor * size[1])

    def kept_bytes(self, image: Image) -> np.ndarray:
        """What is kept of an image, as (H, W, 3) uint8, or (3, H, W) if `planar`."""
        pixels = np.asarray(self.kept(image))
        return pixels.transpose(2, 0, 1) if self.planar else pixels

    def recipe(self) -> str:
        """All that says what is kept of an image."""
        names = ("side", "planar", "_stored_size", "_reencode", "_resize")
        return " ".join([f"kept={KEPT}", *(f"{name}={getattr(self, name)}" for name in names)])


class AugmentingTransform(PlainTransform):
    """Random crop, flip, colours and greyscale, then as `PlainTransform`, by torchvision on PIL's images.

    Args:
        hparams: for `input_size`, `stored_size`, `reencode`, `augmentation`.
        resize: resize to the input size before anything random (WILDS, Spawrious).
        crop: take a random crop of 70 to 100 % of the area (not in Spawrious).

    Attributes:
        crop: as given.
        by_tensors: whether a run may do it by `domainbed.images.augmentation` instead.
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
        self._by_chance = transforms.Compose(steps)

    def __call__(self, image: Image) -> Tensor:
        x: Tensor = self._to_input(self._by_chance(self.before_chance(image)))
        return x


def plain_transform(hparams: Mapping[str, Any]) -> PlainTransform:
    """What is done to an image that is not augmented."""
    return PlainTransform(hparams)


def augmenting_transform(
    hparams: Mapping[str, Any], resize: bool = False, crop: bool = True
) -> AugmentingTransform:
    """What is done to an image that is augmented; for the arguments see `AugmentingTransform`."""
    return AugmentingTransform(hparams, resize, crop)


class JpegPass:
    """An image written as JPEG and read again, in memory."""

    def __init__(self, quality: int) -> None:
        self._quality = quality

    def __call__(self, image: Image) -> Image:
        from PIL import Image

        file = io.BytesIO()
        image.save(file, "JPEG", quality=self._quality)
        return Image.open(file).convert("RGB")

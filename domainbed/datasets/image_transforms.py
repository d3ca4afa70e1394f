"""From an image file to an input of the network: size, augmentation, normalisation (`spec`, 3.5)."""

from __future__ import annotations

import io
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from domainbed.errors import UsageError
from domainbed.hparams import OPTIONS, Hparam, const

if TYPE_CHECKING:
    from PIL.Image import Image

    from domainbed.datasets.image_files import Transform

OPTIONS["input_size"] = Hparam(224, const(224), "side of the images that the network sees, in pixels")
OPTIONS["stored_size"] = Hparam(
    0, const(0), "resize images to this side first, as if stored so (0: off; 227 in the ICCV 2021 code)"
)
OPTIONS["reencode"] = Hparam(
    False, const(False), "pass stored images through JPEG of quality 75, as the ICCV 2021 code did on disk"
)
OPTIONS["augment_evaluation"] = Hparam(
    True, const(True), "evaluate source environments on augmented images, as upstream does"
)

IMAGENET_MEAN = (0.485, 0.456, 0.406)
IMAGENET_STD = (0.229, 0.224, 0.225)


def input_shape(hparams: Mapping[str, Any]) -> tuple[int, int, int]:
    """(3, side, side) of an input."""
    side = _option(hparams, "input_size", least=1)
    return 3, side, side


def plain_transform(hparams: Mapping[str, Any]) -> Transform:
    """Resize, to a float32 tensor, normalise by ImageNet's mean and standard deviation."""
    from torchvision import transforms

    size = input_shape(hparams)[1:]
    return _compose(hparams, [transforms.Resize(size)])


def augmenting_transform(hparams: Mapping[str, Any], resize: bool = False, crop: bool = True) -> Transform:
    """Random crop, flip, colours and greyscale, then as `plain_transform`.

    Args:
        hparams: for `input_size`, `stored_size`, `reencode`.
        resize: resize to the input size before anything random (WILDS, Spawrious).
        crop: take a random crop of 70 to 100 % of the area (not in Spawrious).
    """
    from torchvision import transforms

    size = input_shape(hparams)[1:]
    steps: list[Transform] = []
    if resize:
        steps.append(transforms.Resize(size))
    if crop:
        steps.append(transforms.RandomResizedCrop(size, scale=(0.7, 1.0)))
    steps += [
        transforms.RandomHorizontalFlip(),
        transforms.ColorJitter(0.3, 0.3, 0.3, 0.3),
        transforms.RandomGrayscale(),
    ]
    return _compose(hparams, steps)


class JpegPass:
    """An image written as JPEG and read again, in memory."""

    def __init__(self, quality: int) -> None:
        self._quality = quality

    def __call__(self, image: Image) -> Image:
        from PIL import Image

        file = io.BytesIO()
        image.save(file, "JPEG", quality=self._quality)
        return Image.open(file).convert("RGB")


def _compose(hparams: Mapping[str, Any], steps: list[Transform]) -> Transform:
    """Optional storage, `steps`, tensor, normalisation."""
    from torchvision import transforms

    stored: list[Transform] = []
    side = _option(hparams, "stored_size", least=0)
    if side:
        stored.append(transforms.Resize((side, side)))
    if _option(hparams, "reencode", least=0):
        stored.append(JpegPass(quality=75))
    normalize = transforms.Normalize(IMAGENET_MEAN, IMAGENET_STD)
    composed: Transform = transforms.Compose([*stored, *steps, transforms.ToTensor(), normalize])
    return composed


def _option(hparams: Mapping[str, Any], name: str, least: int) -> int:
    value = OPTIONS[name].check(name, hparams.get(name, OPTIONS[name].default))
    assert isinstance(value, int)
    if value < least:
        raise UsageError(f"hyper-parameter {name} must be at least {least}, not {value}")
    return value

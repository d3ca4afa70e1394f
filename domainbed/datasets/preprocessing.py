"""How an image becomes an input of a network, without augmentation; a saved model keeps it."""

from __future__ import annotations

import io
from collections.abc import Mapping
from dataclasses import asdict, dataclass, fields
from typing import TYPE_CHECKING, Any

import numpy as np

from domainbed.datasets.reading_rules import UPSTREAM, ReadingRules

if TYPE_CHECKING:
    from PIL.Image import Image
    from torch import Tensor


@dataclass(frozen=True)
class Preprocessing:
    """From an RGB image to an input (C, side, side): resize, scale to [0, 1], normalise.

    Attributes:
        side: height and width of an input, in pixels.
        mean, std: of the normalisation, one value for each channel; one channel means greyscale.
        stored_size: side to which images are resized first; 0 for none.
        reencode: whether images then pass through JPEG.
        inverted: whether inputs are the darkness of pixels.
        rules: how image files are read.
    """

    side: int
    mean: tuple[float, ...]
    std: tuple[float, ...]
    stored_size: int = 0
    reencode: bool = False
    inverted: bool = False
    rules: ReadingRules = UPSTREAM

    @property
    def input_shape(self) -> tuple[int, int, int]:
        """(C, side, side)."""
        return len(self.mean), self.side, self.side

    def __call__(self, image: Image) -> Tensor:
        """The input (C, side, side) float32 of an RGB image."""
        import torch

        image = resized(image, self.side, self.stored_size, self.reencode)
        pixels = np.array(image.convert("L") if len(self.mean) == 1 else image)
        planes = torch.from_numpy(255 - pixels if self.inverted else pixels).view(self.side, self.side, -1)
        mean, std = (torch.tensor(values).view(-1, 1, 1) for values in (self.mean, self.std))
        x: Tensor = planes.permute(2, 0, 1).contiguous().float().div_(255).sub_(mean).div_(std)
        return x

    def state(self) -> dict[str, Any]:
        """All attributes as plain values, for `from_state`."""
        return asdict(self)

    @classmethod
    def from_state(cls, state: Mapping[str, Any]) -> Preprocessing:
        """The preprocessing with this `state`, also if it went through JSON.

        Raises: ValueError if the state is not of this version.
        """
        known, of_rules = ({each.name for each in fields(kind)} for kind in (cls, ReadingRules))
        try:
            rules = {name: _immutable(value) for name, value in state["rules"].items()}
            values = {name: _immutable(value) for name, value in state.items() if name != "rules"}
            unknown = sorted((values.keys() - known) | (rules.keys() - of_rules))
            if unknown:
                raise ValueError(f"unknown preprocessing {', '.join(map(str, unknown))}")
            return cls(**values, rules=ReadingRules(**rules))
        except (KeyError, TypeError, AttributeError) as error:
            raise ValueError(f"damaged preprocessing ({type(error).__name__}: {error})") from None


def resized(image: Image, side: int, stored_size: int = 0, reencode: bool = False) -> Image:
    """An RGB image after the steps that come before any augmentation.

    Args:
        image: the image.
        side: side of the result; 0 leaves the size.
        stored_size: side to which it is resized first; 0 for none.
        reencode: whether it then passes through JPEG of quality 75.
    """
    from torchvision.transforms import functional

    if stored_size:
        image = functional.resize(image, [stored_size, stored_size])
    if reencode:
        image = _through_jpeg(image, quality=75)
    return functional.resize(image, [side, side]) if side else image


def _through_jpeg(image: Image, quality: int) -> Image:
    """The image after encoding as JPEG and decoding, in memory."""
    from PIL import Image

    file = io.BytesIO()
    image.save(file, "JPEG", quality=quality)
    return Image.open(file).convert("RGB")


def _immutable(value: object) -> Any:  # noqa: ANN401 - a plain value
    return tuple(value) if isinstance(value, list) else value

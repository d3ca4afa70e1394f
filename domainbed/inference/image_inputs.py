"""Inputs of a network from what users have: paths, PIL images, arrays and tensors."""

from __future__ import annotations

import os
from collections.abc import Iterable, Sequence
from typing import Any

import numpy as np
import torch
from PIL import Image
from torch import Tensor

from domainbed.datasets.image_decoding import Finding, UnreadableImage, decode, to_rgb
from domainbed.datasets.image_formats import readable_formats
from domainbed.datasets.preprocessing import Preprocessing
from domainbed.datasets.reading_rules import ReadingRules
from domainbed.errors import UsageError

ImageLike = str | os.PathLike[str] | Image.Image | np.ndarray[Any, Any] | Tensor
"""One image: the path of a file, a PIL image, bytes (H, W) or (H, W, C) as an array, bytes (C, H, W) as a
tensor; or an input of the network, which is preprocessed already, as floats (C, S, S)."""

_CHANNELS = (1, 3, 4)


def as_list(images: ImageLike | Iterable[ImageLike]) -> list[ImageLike]:
    """One image, a batch of them as an array or a tensor, or several images, as a list of images.

    Raises: UsageError if there is none.
    """
    if isinstance(images, str | os.PathLike | Image.Image):
        return [images]
    if isinstance(images, np.ndarray | Tensor):
        is_batch = images.ndim == 4 or (images.ndim == 2 and is_input(images))
        return list(images) if is_batch else [images]
    found = list(images)
    if not found:
        raise UsageError("there are no images to predict")
    return found


class InputReader:
    """Makes inputs (C, S, S) float32 of images.

    Args:
        preprocessing: that of the model; None if only inputs of the network can be used.
        input_shape: shape of one input.
        keep_truncated: read truncated files as far as possible. If not, they are refused, as in training,
            unless `preprocessing.rules` are upstream's.
    """

    def __init__(
        self, preprocessing: Preprocessing | None, input_shape: Sequence[int], keep_truncated: bool = False
    ) -> None:
        self.preprocessing = preprocessing
        self.input_shape = tuple(input_shape)
        self.keep_truncated = keep_truncated
        readable_formats()  # imports PIL's plugins before threads do

    def __call__(self, image: ImageLike) -> Tensor:
        """The input of one image.

        Raises: UsageError for something that is neither an image nor an input; UnreadableImage for a file
            that cannot be read.
        """
        if isinstance(image, np.ndarray | Tensor) and is_input(image):
            return self._checked(torch.as_tensor(image))
        if self.preprocessing is None:
            raise UsageError(
                f"the model takes inputs of shape {self.input_shape}, and its file does not say how to make "
                "them of an image; pass such inputs as floats from Python"
            )
        return self.preprocessing(self._rgb(image, self.preprocessing.rules))

    def _checked(self, x: Tensor) -> Tensor:
        if tuple(x.shape) != self.input_shape:
            raise UsageError(
                f"floats are inputs of the network, of shape {self.input_shape}, not {tuple(x.shape)}; pass "
                "images as uint8, PIL images or paths"
            )
        return x.detach().to("cpu", torch.float32)

    def _rgb(self, image: ImageLike, rules: ReadingRules) -> Image.Image:
        if isinstance(image, str | os.PathLike):
            path = os.fspath(image)
            decoded = decode(path, rules)
            if rules.converts and not self.keep_truncated and Finding.TRUNCATED in decoded.finding:
                raise UnreadableImage(
                    f"image {path} is truncated or damaged; replace it or delete it, or use --truncated keep "
                    "to read it as far as possible"
                )
            return decoded.image
        if isinstance(image, Image.Image):
            return to_rgb(image, rules, "of PIL").image
        return to_rgb(Image.fromarray(_pixels(image)), rules).image


def is_input(image: ImageLike) -> bool:
    """Whether an array or a tensor has floats, which are inputs of the network."""
    if isinstance(image, Tensor):
        return image.is_floating_point()
    return isinstance(image, np.ndarray) and image.dtype.kind == "f"


def _pixels(values: object) -> np.ndarray[Any, Any]:
    """Pixels (H, W) or (H, W, C) uint8 of an array, or of a tensor with channels first."""
    if isinstance(values, Tensor):
        values = values.detach().cpu().numpy()
        values = values.transpose(1, 2, 0) if values.ndim == 3 else values
    if not isinstance(values, np.ndarray):
        raise UsageError(
            f"an image is a path, a PIL image, an array or a tensor, not {type(values).__name__}"
        )
    if values.dtype != np.uint8 or not (
        values.ndim == 2 or (values.ndim == 3 and values.shape[2] in _CHANNELS)
    ):
        raise UsageError(
            f"pixels are {values.dtype} of shape {values.shape}; pass uint8 of shape (H, W) or (H, W, C) as "
            "an array, or (C, H, W) as a tensor, with 1, 3 or 4 channels"
        )
    return np.ascontiguousarray(values[..., 0] if values.shape[2:] == (1,) else values)

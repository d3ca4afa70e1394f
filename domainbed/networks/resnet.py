"""ResNet-18 and ResNet-50 (He et al. 2016), from torchvision or timm."""

from __future__ import annotations

import functools
import logging
from typing import Any, Self

from torch import Tensor, nn

from domainbed.networks import FEATURIZERS
from domainbed.networks.backbones import timm_network, torchvision_network
from domainbed.networks.base import FeaturizerModule
from domainbed.networks.first_layer import with_channels
from domainbed.networks.options import dropout_rate, option
from domainbed.networks.weights import Pretrained, initialise, of_timm, of_torchvision

AUGMIX = "resnet50.ram_in1k"


@FEATURIZERS.register("resnet")
class ResNet(FeaturizerModule):
    """A ResNet without its last layer: 2048 features, of ResNet-18 512.

    timm's ResNet-50 with AugMix weights if `resnet50_augmix`; else torchvision's ResNet-18 if `resnet18`;
    else torchvision's ResNet-50. Other optional hyper-parameters: see `domainbed.networks.options`.

    Args:
        input_shape: (channels, height, width).
        hparams: holds `resnet18`, `resnet50_augmix`, `freeze_bn`, `resnet_dropout`.
    """

    SAMPLEWISE = True
    SMALLEST = 32

    def __init__(self, input_shape: tuple[int, ...], hparams: dict[str, Any]) -> None:
        super().__init__()
        channels = self.channels(input_shape)
        network, weights = _backbone(hparams)
        self.n_outputs: int = network.fc.in_features
        network.fc = nn.Identity()
        initialise(network, weights, hparams, ignored=("fc.",))
        network.conv1 = with_channels(network.conv1, channels)
        self.network = network
        self.hparams = hparams
        self.dropout = nn.Dropout(dropout_rate("resnet_dropout", hparams["resnet_dropout"]))
        self.activation = nn.Identity()
        self.train()

    def forward(self, x: Tensor) -> Tensor:
        """Images (B, C, H, W) to features (B, n_outputs)."""
        features: Tensor = self.activation(self.dropout(self.network(x)))
        return features

    def train(self, mode: bool = True) -> Self:
        """Training mode or not; batch norms stay in evaluation mode if `freeze_bn`."""
        super().train(mode)
        if self.hparams["freeze_bn"]:
            self.freeze_bn()
        return self

    def freeze_bn(self) -> None:
        """Put all batch norms into evaluation mode; their scales and shifts still train."""
        for module in self.network.modules():
            if isinstance(module, nn.BatchNorm2d):
                module.eval()


@FEATURIZERS.register("resnet18")
def resnet18(input_shape: tuple[int, ...], hparams: dict[str, Any]) -> ResNet:
    """torchvision's ResNet-18, whatever upstream's flags say."""
    return ResNet(input_shape, {**hparams, "resnet18": True, "resnet50_augmix": False})


@FEATURIZERS.register("resnet50")
def resnet50(input_shape: tuple[int, ...], hparams: dict[str, Any]) -> ResNet:
    """torchvision's ResNet-50, whatever upstream's flags say."""
    return ResNet(input_shape, {**hparams, "resnet18": False, "resnet50_augmix": False})


def _backbone(hparams: dict[str, Any]) -> tuple[Any, Pretrained]:
    architecture = "resnet18" if hparams["resnet18"] else "resnet50"
    if not hparams["resnet50_augmix"]:
        return torchvision_network(architecture), of_torchvision(architecture)
    if hparams["resnet18"]:
        _warn_about_resnet18()
    if option(hparams, "parity_init"):
        torchvision_network(architecture)  # for its draws from the generator; upstream throws it away too
    network = timm_network(AUGMIX, instead='or give "resnet50_augmix": false for torchvision\'s ResNet')
    return network, of_timm(AUGMIX, network)


@functools.cache
def _warn_about_resnet18() -> None:
    logging.getLogger(__name__).warning(
        'hyper-parameter "resnet18" has no effect while "resnet50_augmix" is true (as in upstream): '
        'this is a ResNet-50; give "resnet50_augmix": false for ResNet-18'
    )

"""ResNet-18 and ResNet-50 (He et al. 2016), from torchvision or timm."""

from __future__ import annotations

import functools
import logging
from typing import Any

from torch import nn

from domainbed.errors import misspelt
from domainbed.hparams import option
from domainbed.networks.backbones import Backbone, with_channels
from domainbed.networks.default_weights import starts_from
from domainbed.networks.libraries import timm_network, timm_tags, torchvision_network
from domainbed.networks.options import reads
from domainbed.networks.published import Pretrained, of_timm, of_torchvision, torchvision_urls
from domainbed.networks.registry import FEATURIZERS
from domainbed.networks.stages import Stage, in_sequence
from domainbed.networks.weights import initialise

_READS = ("pretrained", "weights", "weights_file", "layout", "parity_init", "preset")

AUGMIX = "ram_in1k"
"""timm's tag of the AugMix weights that upstream's default ResNet-50 starts from."""
LAYERS = ("layer1", "layer2", "layer3", "layer4")
DEFAULT_TAG = "IMAGENET1K_V1"
"""Tag of the weights that torchvision's ResNets start from by default."""


@FEATURIZERS.register("resnet")
@starts_from(lambda: of_timm(f"resnet50.{AUGMIX}"))
@reads(*_READS)
class ResNet(Backbone):
    """A ResNet without its last layer: 2048 features, or 512 for ResNet-18.

    With `resnet50_augmix` it is timm's ResNet-50 with AugMix weights. Otherwise it is torchvision's ResNet-18
    if `resnet18` is set, else torchvision's ResNet-50, with the weights IMAGENET1K_V1. The optional
    hyper-parameter `weights`, a tag of torchvision's or timm's, overrides `resnet50_augmix`. See
    `domainbed.networks.options` for other optional hyper-parameters.

    Args:
        input_shape: (channels, height, width).
        hparams: `resnet18`, `resnet50_augmix`, `freeze_bn`, `resnet_dropout`.
    """

    SAMPLEWISE = True
    SMALLEST = 32

    def __init__(self, input_shape: tuple[int, ...], hparams: dict[str, Any]) -> None:
        channels = self.channels(input_shape)
        network, weights = _backbone(hparams)
        n_outputs: int = network.fc.in_features
        network.fc = nn.Identity()
        provenance = initialise(network, weights, hparams, ignored=("fc.",))
        network.conv1 = with_channels(network.conv1, channels)
        super().__init__(network, n_outputs, hparams, "resnet_dropout", provenance)

    def stages(self) -> list[Stage]:
        """stem (up to the pooling) and layer1 to layer4; the mean over positions belongs to layer4."""
        network = self.network
        is_timms = hasattr(network, "act1")
        stem = [network.conv1, network.bn1, network.act1 if is_timms else network.relu, network.maxpool]
        pool = network.global_pool if is_timms else network.avgpool
        return [
            Stage("stem", in_sequence(stem), stem),
            *(Stage(name, getattr(network, name), [getattr(network, name)]) for name in LAYERS[:-1]),
            Stage("layer4", lambda x: pool(network.layer4(x)).flatten(1), [network.layer4]),
        ]


@FEATURIZERS.register("resnet18")
@starts_from(lambda: of_torchvision("resnet18", DEFAULT_TAG))
@reads(*_READS)
def resnet18(input_shape: tuple[int, ...], hparams: dict[str, Any]) -> ResNet:
    """A new ResNet-18, by default torchvision's. Ignores `resnet18` and `resnet50_augmix`."""
    return ResNet(input_shape, {**hparams, "resnet18": True, "resnet50_augmix": False})


@FEATURIZERS.register("resnet50")
@starts_from(lambda: of_torchvision("resnet50", DEFAULT_TAG))
@reads(*_READS)
def resnet50(input_shape: tuple[int, ...], hparams: dict[str, Any]) -> ResNet:
    """A new ResNet-50, by default torchvision's. Ignores `resnet18` and `resnet50_augmix`."""
    return ResNet(input_shape, {**hparams, "resnet18": False, "resnet50_augmix": False})


def _backbone(hparams: dict[str, Any]) -> tuple[Any, Pretrained]:
    """The network, with its last layer, and its weights."""
    architecture = flagged = "resnet18" if hparams["resnet18"] else "resnet50"
    tag = str(option(hparams, "weights"))
    if not tag and hparams["resnet50_augmix"]:
        if hparams["resnet18"]:
            _warn_about_resnet18()
        architecture, tag = "resnet50", AUGMIX
    urls = torchvision_urls(architecture)
    if not tag or tag in urls:
        return torchvision_network(architecture), of_torchvision(architecture, tag or DEFAULT_TAG)
    tags = timm_tags(architecture)
    if tag not in tags:
        raise misspelt(f"unknown weights {tag!r} of {architecture}", tag, [*urls, *tags])
    if option(hparams, "parity_init"):
        torchvision_network(flagged)  # only for its random draws; upstream also builds and discards it
    return timm_network(f"{architecture}.{tag}"), of_timm(f"{architecture}.{tag}")


@functools.cache
def _warn_about_resnet18() -> None:
    logging.getLogger(__name__).warning(
        'hyper-parameter "resnet18" has no effect while "resnet50_augmix" is true (as in upstream): '
        'this is a ResNet-50; set "resnet50_augmix": false for ResNet-18'
    )

"""AlexNet (Krizhevsky et al. 2012), the featurizer in the experiments of Mansilla et al. (2021)."""

from __future__ import annotations

from itertools import pairwise
from typing import Any

from torch import Tensor, nn

from domainbed.hparams import option
from domainbed.networks.backbones import Layout, with_channels
from domainbed.networks.default_weights import starts_from
from domainbed.networks.libraries import torchvision_network
from domainbed.networks.options import reads
from domainbed.networks.published import of_torchvision
from domainbed.networks.stages import Stage, StagedFeaturizer, in_sequence
from domainbed.networks.weights import initialise

DEFAULT_TAG = "IMAGENET1K_V1"
"""torchvision's tag of the weights that the network starts from by default."""


@starts_from(lambda: of_torchvision("alexnet", DEFAULT_TAG))
@reads("pretrained", "weights", "weights_file", "layout")
class AlexNet(StagedFeaturizer):
    """torchvision's AlexNet with ImageNet weights, without its last linear layer: 4096 features.

    The algorithm's classifier takes the place of the last layer, with random weights. Dropout is as in
    torchvision. There is no batch norm.

    Args:
        input_shape: (channels, height, width), 63 pixels or more a side.
        hparams: optionally `pretrained`, `weights`, `weights_file` and `layout`.
    """

    SAMPLEWISE = True
    SMALLEST = 63

    def __init__(self, input_shape: tuple[int, ...], hparams: dict[str, Any]) -> None:
        super().__init__()
        channels = self.channels(input_shape)
        network: Any = torchvision_network("alexnet")
        self.n_outputs: int = network.classifier[6].in_features
        network.classifier[6] = nn.Identity()
        tag = str(option(hparams, "weights")) or DEFAULT_TAG
        weights = of_torchvision("alexnet", tag)
        self.provenance = initialise(network, weights, hparams, ignored=("classifier.6.",))
        network.features[0] = with_channels(network.features[0], channels)
        self.network = network
        self.layout = Layout(hparams)
        self.activation = nn.Identity()

    def forward(self, x: Tensor) -> Tensor:
        """Features (B, 4096) of images (B, C, H, W)."""
        if self.frozen:
            return super().forward(x)
        return self.finish(self.network(self.arrange(x)))

    def arrange(self, x: Tensor) -> Tensor:
        return self.layout(x)

    def stages(self) -> list[Stage]:
        """conv1 to conv5, fc6 and fc7, each with its ReLU and with the pooling or dropout around it."""
        convolutions, linear = list(self.network.features), list(self.network.classifier)
        ends = (0, 3, 6, 8, 10, 13)
        parts = [convolutions[first:end] for first, end in pairwise(ends)]
        pool = [self.network.avgpool, nn.Flatten()]
        parts += [pool + linear[:3], linear[3:]]
        names = ("conv1", "conv2", "conv3", "conv4", "conv5", "fc6", "fc7")
        return [Stage(name, in_sequence(part), part) for name, part in zip(names, parts, strict=True)]

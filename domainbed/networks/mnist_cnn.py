"""MNIST_CNN: four convolutions, for images of 28 x 28 pixels."""

from __future__ import annotations

from typing import Any

import torch.nn.functional as F
from torch import Tensor, nn

from domainbed.networks.base import FeaturizerModule
from domainbed.networks.registry import FEATURIZERS


class MNIST_CNN(FeaturizerModule):
    """Four blocks of convolution, ReLU and group norm, then the mean over positions: 128 features.

    Without batch norm, the features of a sample do not depend on its minibatch.
    """

    SAMPLEWISE = True

    n_outputs = 128

    def __init__(self, input_shape: tuple[int, ...]) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(self.channels(input_shape), 64, 3, padding=1)
        self.conv2 = nn.Conv2d(64, 128, 3, stride=2, padding=1)
        self.conv3 = nn.Conv2d(128, 128, 3, padding=1)
        self.conv4 = nn.Conv2d(128, 128, 3, padding=1)
        self.bn0 = nn.GroupNorm(8, 64)
        self.bn1 = nn.GroupNorm(8, 128)
        self.bn2 = nn.GroupNorm(8, 128)
        self.bn3 = nn.GroupNorm(8, 128)
        self.avgpool = nn.AdaptiveAvgPool2d((1, 1))
        self.activation = nn.Identity()

    def forward(self, x: Tensor) -> Tensor:
        """Features (B, 128) of images (B, C, H, W)."""
        x = self.bn0(F.relu(self.conv1(x)))
        x = self.bn1(F.relu(self.conv2(x)))
        x = self.bn2(F.relu(self.conv3(x)))
        x = self.bn3(F.relu(self.conv4(x)))
        features: Tensor = self.activation(self.avgpool(x).flatten(1))
        return features


@FEATURIZERS.register("mnist_cnn")
def mnist_cnn(input_shape: tuple[int, ...], hparams: dict[str, Any]) -> MNIST_CNN:
    """A new MNIST_CNN, which has no hyper-parameters."""
    return MNIST_CNN(input_shape)

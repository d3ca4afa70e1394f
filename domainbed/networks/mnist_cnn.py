"""MNIST_CNN: four convolutions, for images of 28 x 28 pixels."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch.nn.functional as F
from torch import Tensor, nn

from domainbed.networks.options import reads
from domainbed.networks.registry import FEATURIZERS
from domainbed.networks.stages import Stage, StagedFeaturizer


class MNIST_CNN(StagedFeaturizer):
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

    def stages(self) -> list[Stage]:
        """conv1 to conv4, each with its ReLU and group norm; the mean over positions belongs to conv4."""

        def block(conv: nn.Module, norm: nn.Module) -> Callable[[Tensor], Tensor]:
            return lambda x: norm(F.relu(conv(x)))

        last = block(self.conv4, self.bn3)
        return [
            Stage("conv1", block(self.conv1, self.bn0), [self.conv1, self.bn0]),
            Stage("conv2", block(self.conv2, self.bn1), [self.conv2, self.bn1]),
            Stage("conv3", block(self.conv3, self.bn2), [self.conv3, self.bn2]),
            Stage("conv4", lambda x: self.avgpool(last(x)).flatten(1), [self.conv4, self.bn3]),
        ]


@FEATURIZERS.register("mnist_cnn")
@reads()
def mnist_cnn(input_shape: tuple[int, ...], hparams: dict[str, Any]) -> MNIST_CNN:
    """A new MNIST_CNN, which has no hyper-parameters."""
    return MNIST_CNN(input_shape)

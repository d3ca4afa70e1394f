"""SmallCNN: three convolutions, for images of 64 x 64 pixels on a CPU."""

from __future__ import annotations

from typing import Any

from torch import Tensor, nn

from domainbed.networks.base import FeaturizerModule
from domainbed.networks.registry import FEATURIZERS


class SmallCNN(FeaturizerModule):
    """Three blocks of convolution, ReLU and group norm, then the mean over positions: 128 features.

    With the first convolution's stride of 4, a training step on 96 images of 64 x 64 pixels takes about 30 ms
    on one core. With group norm instead of batch norm, the features of a sample do not depend on its
    minibatch.
    """

    SAMPLEWISE = True
    SMALLEST = 16
    n_outputs = 128

    def __init__(self, input_shape: tuple[int, ...]) -> None:
        super().__init__()
        self.layers = nn.Sequential(
            nn.Conv2d(self.channels(input_shape), 32, 4, stride=4),
            nn.ReLU(),
            nn.GroupNorm(8, 32),
            nn.Conv2d(32, 64, 3, stride=2, padding=1),
            nn.ReLU(),
            nn.GroupNorm(8, 64),
            nn.Conv2d(64, 128, 3, stride=2, padding=1),
            nn.ReLU(),
            nn.GroupNorm(8, 128),
        )
        self.activation = nn.Identity()

    def forward(self, x: Tensor) -> Tensor:
        """Features (B, 128) of images (B, C, H, W)."""
        features: Tensor = self.activation(self.layers(x).mean(dim=(2, 3)))
        return features


@FEATURIZERS.register("small_cnn")
def small_cnn(input_shape: tuple[int, ...], hparams: dict[str, Any]) -> SmallCNN:
    """A new SmallCNN, which has no hyper-parameters."""
    return SmallCNN(input_shape)

"""Wide_ResNet (Zagoruyko and Komodakis 2016, arXiv 1605.07146), for images of 32 x 32 pixels."""

from __future__ import annotations

from typing import Any

import torch.nn.functional as F
from torch import Tensor, nn

from domainbed.networks.options import reads
from domainbed.networks.registry import FEATURIZERS
from domainbed.networks.stages import Stage, StagedFeaturizer


def conv3x3(in_planes: int, out_planes: int, stride: int = 1) -> nn.Conv2d:
    """A 3x3 convolution with bias and a padding of 1, which keeps the image size at stride 1."""
    return nn.Conv2d(in_planes, out_planes, 3, stride=stride, padding=1, bias=True)


def conv_init(module: nn.Module) -> None:
    """Xavier initialisation, for `nn.Module.apply`. Part of upstream's module, which never calls it."""
    if isinstance(module, nn.Conv2d):
        nn.init.xavier_uniform_(module.weight, gain=2**0.5)
        if module.bias is not None:
            nn.init.zeros_(module.bias)
    elif isinstance(module, nn.BatchNorm2d):
        nn.init.ones_(module.weight)
        nn.init.zeros_(module.bias)


class wide_basic(nn.Module):
    """Residual block: batch norm, ReLU and convolution, twice. The stride is the second convolution's."""

    def __init__(self, in_planes: int, planes: int, dropout_rate: float, stride: int = 1) -> None:
        super().__init__()
        self.bn1 = nn.BatchNorm2d(in_planes)
        self.conv1 = conv3x3(in_planes, planes)
        self.dropout = nn.Dropout(dropout_rate)
        self.bn2 = nn.BatchNorm2d(planes)
        self.conv2 = conv3x3(planes, planes, stride)
        self.shortcut = nn.Sequential()
        if stride != 1 or in_planes != planes:
            self.shortcut.append(nn.Conv2d(in_planes, planes, 1, stride=stride, bias=True))

    def forward(self, x: Tensor) -> Tensor:
        """Feature maps (B, planes, H / stride, W / stride) of maps (B, in_planes, H, W)."""
        out = self.dropout(self.conv1(F.relu(self.bn1(x))))
        out = self.conv2(F.relu(self.bn2(out)))
        added: Tensor = out + self.shortcut(x)
        return added


class Wide_ResNet(StagedFeaturizer):
    """Wide residual network with 64 * widen_factor features.

    Args:
        input_shape: (channels, height, width).
        depth: number of layers, 6n + 4 for n blocks in each of the three stages.
        widen_factor: the stages have 16, 32 and 64 times as many channels.
        dropout_rate: dropout probability within the blocks.
    """

    SMALLEST = 4

    def __init__(
        self, input_shape: tuple[int, ...], depth: int, widen_factor: int, dropout_rate: float
    ) -> None:
        super().__init__()
        assert depth % 6 == 4, "the depth of a Wide_ResNet is 6n + 4"
        n = (depth - 4) // 6
        widths = [16, 16 * widen_factor, 32 * widen_factor, 64 * widen_factor]

        def stage(i: int, stride: int) -> nn.Sequential:
            first = wide_basic(widths[i - 1], widths[i], dropout_rate, stride)
            return nn.Sequential(
                first, *(wide_basic(widths[i], widths[i], dropout_rate) for _ in range(1, n))
            )

        self.conv1 = conv3x3(self.channels(input_shape), widths[0])
        self.layer1 = stage(1, stride=1)
        self.layer2 = stage(2, stride=2)
        self.layer3 = stage(3, stride=2)
        self.bn1 = nn.BatchNorm2d(widths[3], momentum=0.9)
        self.n_outputs = widths[3]
        self.activation = nn.Identity()

    def stages(self) -> list[Stage]:
        """The first convolution and the three layers; what follows them belongs to layer3."""

        def last(x: Tensor) -> Tensor:
            x = F.relu(self.bn1(self.layer3(x)))
            # Average over the whole map. Upstream averages over 8x8 positions, the same at 32 pixels.
            return F.avg_pool2d(x, x.shape[2:]).flatten(1)

        return [
            Stage("conv1", self.conv1, [self.conv1]),
            Stage("layer1", self.layer1, [self.layer1]),
            Stage("layer2", self.layer2, [self.layer2]),
            Stage("layer3", last, [self.layer3, self.bn1]),
        ]


@FEATURIZERS.register("wide_resnet")
@reads()
def wide_resnet(input_shape: tuple[int, ...], hparams: dict[str, Any]) -> Wide_ResNet:
    """A new Wide_ResNet of upstream's size."""
    return Wide_ResNet(input_shape, depth=16, widen_factor=2, dropout_rate=0.0)

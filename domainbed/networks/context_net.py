"""ContextNet: the convolutions that compute an image's context in ARM."""

from __future__ import annotations

from torch import Tensor, nn


class ContextNet(nn.Module):
    """Three convolutions from images (B, C, H, W) to one more channel (B, 1, H, W).

    Its batch norms compute their statistics over all samples of a batch, whatever their environments.

    Args:
        input_shape: (channels, height, width).
    """

    def __init__(self, input_shape: tuple[int, ...]) -> None:
        super().__init__()
        self.context_net = nn.Sequential(
            nn.Conv2d(input_shape[0], 64, 5, padding=2),
            nn.BatchNorm2d(64),
            nn.ReLU(),
            nn.Conv2d(64, 64, 5, padding=2),
            nn.BatchNorm2d(64),
            nn.ReLU(),
            nn.Conv2d(64, 1, 5, padding=2),
        )

    def forward(self, x: Tensor) -> Tensor:
        """Contexts (B, 1, H, W) of images (B, C, H, W)."""
        context: Tensor = self.context_net(x)
        return context

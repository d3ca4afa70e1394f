"""Pretrained networks for images that do not have three channels."""

from __future__ import annotations

import torch
from torch import nn


def with_channels(conv: nn.Conv2d, channels: int) -> nn.Conv2d:
    """`conv` itself if it has `channels` inputs already; else a new one that has.

    Input channel i of the new one has the weights of the old channel i modulo the old number, not
    rescaled (upstream's rule).
    """
    if conv.in_channels == channels:
        return conv
    new = nn.Conv2d(
        channels,
        conv.out_channels,
        conv.kernel_size,  # type: ignore[arg-type]  # two numbers, which torch's annotations do not say
        stride=conv.stride,  # type: ignore[arg-type]
        padding=conv.padding,  # type: ignore[arg-type]
        bias=conv.bias is not None,
    )
    with torch.no_grad():
        new.weight.copy_(conv.weight[:, torch.arange(channels) % conv.in_channels])
        if new.bias is not None and conv.bias is not None:
            new.bias.copy_(conv.bias)
    return new

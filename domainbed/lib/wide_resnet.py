"""Upstream's import path of Wide_ResNet."""

from domainbed.networks.wide_resnet import Wide_ResNet, conv3x3, conv_init, wide_basic

__all__ = ["Wide_ResNet", "conv3x3", "conv_init", "wide_basic"]

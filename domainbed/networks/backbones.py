"""Networks of torchvision and timm as featurizers: dropout, batch norms, memory layout, input channels."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Self

import torch
from torch import Tensor, nn

from domainbed.errors import UsageError
from domainbed.hparams import option
from domainbed.networks.base import Provenance
from domainbed.networks.stages import StagedFeaturizer


class Backbone(StagedFeaturizer):
    """A network without its last layer, followed by dropout. Subclasses define its stages.

    Args:
        network: maps images (B, C, H, W) to features (B, n_outputs).
        n_outputs: number of features.
        hparams: `freeze_bn`, the dropout probability, and optionally `layout`.
        dropout: name of the hyper-parameter with the dropout probability.
        provenance: origin of the network's weights.
    """

    def __init__(
        self,
        network: nn.Module,
        n_outputs: int,
        hparams: dict[str, Any],
        dropout: str,
        provenance: Provenance,
    ) -> None:
        super().__init__()
        self.network: Any = network
        self.n_outputs = n_outputs
        self.hparams = hparams
        self.provenance = provenance
        self.dropout = nn.Dropout(hparams[dropout])
        self.activation = nn.Identity()
        self.layout = Layout(hparams)
        self.train()

    def forward(self, x: Tensor) -> Tensor:
        """Features (B, n_outputs) of images (B, C, H, W)."""
        if self.frozen:
            return super().forward(x)
        return self.finish(self.network(self.arrange(x)))

    def arrange(self, x: Tensor) -> Tensor:
        return self.layout(x)

    def finish(self, x: Tensor) -> Tensor:
        return super().finish(self.dropout(x))

    def train(self, mode: bool = True) -> Self:
        """Set training or evaluation mode. With `freeze_bn`, batch norms stay in evaluation mode."""
        super().train(mode)
        if self.hparams["freeze_bn"]:
            self.freeze_bn()
        return self

    def freeze_bn(self) -> None:
        """Set all batch norms to evaluation mode. Their scales and shifts are still trained."""
        for module in self.network.modules():
            if isinstance(module, nn.modules.batchnorm._BatchNorm):
                module.eval()


class Layout:
    """Memory layout in which a featurizer passes images to its convolutions.

    On CPUs, channels are innermost (`torch.channels_last`), which saves about a tenth of a training step.
    Features then differ by rounding errors. The hyper-parameter `layout` with the value "plain" leaves images
    as they are.
    """

    def __init__(self, hparams: Mapping[str, Any]) -> None:
        self._plain = option(hparams, "layout") == "plain"

    def __call__(self, x: Tensor) -> Tensor:
        """Images (B, C, H, W), copied if their layout changes."""
        return x if self._plain or x.device.type != "cpu" else with_channels_innermost(x)


def with_channels_innermost(x: Tensor) -> Tensor:
    """Images (B, C, H, W) with channels innermost in memory, copied if needed; other tensors unchanged."""
    return x.contiguous(memory_format=torch.channels_last) if x.dim() == 4 else x


def with_channels(conv: nn.Conv2d, channels: int) -> nn.Conv2d:
    """A convolution like `conv` with `channels` input channels; `conv` itself if it has that many.

    The weights of input channel i are those of channel i modulo `conv.in_channels`, without rescaling, as in
    upstream.
    """
    if conv.in_channels == channels:
        return conv
    new = nn.Conv2d(
        channels,
        conv.out_channels,
        conv.kernel_size,  # type: ignore[arg-type]  # always a pair, though torch's annotation is wider
        stride=conv.stride,  # type: ignore[arg-type]  # likewise
        padding=conv.padding,  # type: ignore[arg-type]  # likewise
        bias=conv.bias is not None,
    )
    with torch.no_grad():
        new.weight.copy_(conv.weight[:, torch.arange(channels) % conv.in_channels])
        if new.bias is not None and conv.bias is not None:
            new.bias.copy_(conv.bias)
    return new


def train_attention_only(network: nn.Module) -> None:
    """Freeze all parameters of `network` except those of its attention layers.

    Raises: UsageError if it has none.
    """
    if not has_attention(network):
        raise UsageError('hyper-parameter "vit_attn_tune" needs attention layers, and this network has none')
    for name, parameter in network.named_parameters():
        parameter.requires_grad_("attn" in name)


def has_attention(network: nn.Module) -> bool:
    """Whether `network` has attention layers, judged by timm's parameter names."""
    return any("attn" in name for name, _ in network.named_parameters())

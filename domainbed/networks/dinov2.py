"""DINOv2's vision transformer ViT-B/14 (Oquab et al. 2023, arXiv 2304.07193), built by timm."""

from __future__ import annotations

from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from domainbed.errors import UsageError
from domainbed.hparams import option
from domainbed.networks.backbones import train_attention_only
from domainbed.networks.default_weights import starts_from
from domainbed.networks.libraries import timm_network
from domainbed.networks.options import reads
from domainbed.networks.published import of_timm
from domainbed.networks.registry import FEATURIZERS
from domainbed.networks.stages import Stage, StagedFeaturizer
from domainbed.networks.weights import initialise

NAME = "vit_base_patch14_dinov2.lvd142m"
PATCH = 14
"""Height and width of a patch in pixels."""
LAST_BLOCKS = 4
"""Number of final blocks whose class tokens are features."""


@FEATURIZERS.register("dinov2")
@starts_from(lambda: of_timm(NAME))
@reads("pretrained", "weights", "weights_file")
class DinoV2(StagedFeaturizer):
    """DINOv2's ViT-B/14 with 5 * 768 features.

    They are the class tokens of the last four blocks and the mean patch token of the last one, after the
    final layer norm, as DINOv2's `get_intermediate_layers` returns them.

    Args:
        input_shape: (3, height, width); height and width must be multiples of 14 pixels.
        hparams: `vit_dropout`, and `vit_attn_tune` to train the attention layers only.
    """

    SMALLEST = PATCH

    def __init__(self, input_shape: tuple[int, ...], hparams: dict[str, Any]) -> None:
        super().__init__()
        if self.channels(input_shape) != 3 or input_shape[1] % PATCH or input_shape[2] % PATCH:
            raise UsageError(
                f"DINOv2 takes images of 3 channels and multiples of {PATCH} pixels a side, "
                f"not inputs of shape {tuple(input_shape)}"
            )
        own, tag = NAME.partition(".")[2], str(option(hparams, "weights"))
        if tag not in ("", own):
            raise UsageError(
                f"featurizer dinov2 only has the weights {own}, not {tag!r}: leave out "
                '"weights", or choose another network of timm with "featurizer": "timm:NAME"'
            )
        # Any, because timm does not annotate the attributes of its networks.
        network: Any = timm_network(NAME, num_classes=0)
        self.provenance = initialise(network, of_timm(NAME), hparams, ignored=("mask_token", "head."))
        self.network = network
        self.n_outputs: int = (LAST_BLOCKS + 1) * network.embed_dim
        self.dropout = nn.Dropout(hparams["vit_dropout"])
        self.activation = nn.Identity()
        if hparams["vit_attn_tune"]:
            train_attention_only(network)

    def stages(self) -> list[Stage]:
        """Patches with their positions, each of the first eight blocks, and the last four as one stage."""
        network = self.network
        early, late = network.blocks[:-LAST_BLOCKS], network.blocks[-LAST_BLOCKS:]
        own = [(network, "cls_token"), (network, "pos_embed")]
        return [
            Stage("patch_embed", self.embedded_patches, [network.patch_embed], own),
            *(Stage(f"blocks.{i}", block, [block]) for i, block in enumerate(early)),
            Stage("last_blocks", self.joined_tokens, [late, network.norm]),
        ]

    def finish(self, x: Tensor) -> Tensor:
        return super().finish(self.dropout(x))

    def embedded_patches(self, x: Tensor) -> Tensor:
        """Class token and patches (B, 1 + patches, 768) of images (B, 3, H, W), with their positions."""
        network = self.network
        patches = network.patch_embed.proj(x)
        class_token = network.cls_token.expand(len(x), -1, -1)
        tokens = torch.cat([class_token, patches.flatten(2).transpose(1, 2)], dim=1)
        return tokens + position_embedding(network.pos_embed, patches.shape[2], patches.shape[3])

    def joined_tokens(self, tokens: Tensor) -> Tensor:
        """Features (B, 3840) of the tokens (B, 1 + patches, 768) that enter the last four blocks."""
        class_tokens = []
        for block in self.network.blocks[-LAST_BLOCKS:]:
            tokens = block(tokens)
            normalised = self.network.norm(tokens)
            class_tokens.append(normalised[:, 0])
        mean_patch = normalised[:, 1:].mean(dim=1)
        return torch.cat([*class_tokens, mean_patch], dim=1)


def position_embedding(trained: Tensor, rows: int, columns: int) -> Tensor:
    """Position embedding (1, 1 + rows * columns, D) of the class token and a grid of patches.

    Interpolated from `trained` (1, 1 + M * M, D) as in DINOv2's code: bicubic, without antialiasing, at the
    scale (rows + 0.1) / M. timm's own interpolation gives different numbers.
    """
    side = round((trained.shape[1] - 1) ** 0.5)
    if rows == columns == side:
        return trained
    grid = trained[:, 1:].reshape(1, side, side, -1).permute(0, 3, 1, 2)
    scale = ((rows + 0.1) / side, (columns + 0.1) / side)
    grid = F.interpolate(grid, scale_factor=scale, mode="bicubic", align_corners=False)
    return torch.cat([trained[:, :1], grid.flatten(2).transpose(1, 2)], dim=1)

"""CLIP's image tower as a featurizer (Radford et al. 2021, arXiv 2103.00020), built by open_clip."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import torch.nn.functional as F
from torch import Tensor, nn

from domainbed.datasets.image_transforms import IMAGENET_MEAN, IMAGENET_STD
from domainbed.errors import UsageError
from domainbed.hparams import option
from domainbed.networks import class_prompts
from domainbed.networks.backbones import Backbone, train_attention_only, with_channels
from domainbed.networks.base import NO_WEIGHTS
from domainbed.networks.clip_models import (
    DEFAULT_MODEL,
    TINY,
    architecture,
    new_model,
    normalisation,
    published,
    shown,
    tokenizer_of,
)
from domainbed.networks.default_weights import starts_from
from domainbed.networks.options import reads
from domainbed.networks.registry import FEATURIZERS
from domainbed.networks.stages import Stage, in_sequence
from domainbed.networks.timm_networks import Renormalise
from domainbed.networks.timm_stages import is_chain
from domainbed.networks.weights import weights_file

LAYERS = ("layer1", "layer2", "layer3", "layer4")
OPTIONS_OF_CLIP = ("clip_model", "clip_normalise", "clip_head", "clip_templates", "class_names")


@FEATURIZERS.register("clip")
@starts_from(lambda: published(DEFAULT_MODEL, ""))
@reads("pretrained", "weights", "weights_file", "layout", *OPTIONS_OF_CLIP)
class Clip(Backbone):
    """The image tower of a CLIP model of open_clip. The features are image embeddings.

    They are the projected embeddings (512 of ViT-B/16), unnormalised unless `clip_normalise` says otherwise.
    With `clip_head` text, the classifier on the features starts from the embeddings of prompts with the
    classes' names, and embeddings are normalised, so that its first logits are those of zero-shot CLIP
    (Wortsman et al. 2022, arXiv 2109.01903, section 2). The text tower is dropped then.

    Images are normalised as for CLIP's training. Transformers interpolate their position embeddings to the
    size of the input.

    Args:
        input_shape: (channels, height, width).
        hparams: `freeze_bn`, `resnet_dropout` or `vit_dropout`, `vit_attn_tune`; optionally `pretrained`,
            `weights` (a tag of open_clip), `weights_file`, and `OPTIONS_OF_CLIP`.

    Attributes:
        text_head: weights (C, n_outputs) that the classifier starts from, as long as no one took them.

    Raises: UsageError if the model cannot take such inputs, or its weights are not available.
    """

    SMALLEST = 16

    is_chain = False
    """Whether the image tower is known to be a chain of stages. Found out when a stage is to be frozen."""

    def __init__(self, input_shape: tuple[int, ...], hparams: dict[str, Any]) -> None:
        channels = self.channels(input_shape)
        name, tag = str(option(hparams, "clip_model")), str(option(hparams, "weights"))
        architecture(name)  # raises for an unknown one
        source = published(name, tag)
        # The tiny model has no published weights, and so starts from random ones without being asked.
        found = weights_file(source, hparams) if name != TINY or option(hparams, "weights_file") else None
        model = new_model(name, (input_shape[1], input_shape[2]), found[0] if found else None, source)
        network = model.visual
        if channels != 3:
            if not hasattr(network, "conv1"):
                raise UsageError(f"clip_model {shown(name)} takes images of 3 channels, not {channels}")
            network.conv1 = with_channels(network.conv1, channels)
        self.normalises = option(hparams, "clip_normalise") == "yes"
        text_head = None
        if option(hparams, "clip_head") == "text":
            text_head = _text_head(model, name, hparams)
            self.normalises = option(hparams, "clip_normalise") != "no"
        dropout = "resnet_dropout" if hasattr(network, "layer4") else "vit_dropout"
        n_outputs: int = architecture(name)["embed_dim"]
        super().__init__(network, n_outputs, hparams, dropout, found[1] if found else NO_WEIGHTS)
        self.text_head = text_head
        mean, std = normalisation(name, tag)
        same = (mean, std) == (IMAGENET_MEAN, IMAGENET_STD) or channels != 3
        self.renormalise = nn.Identity() if same else Renormalise(mean, std)
        if hparams["vit_attn_tune"]:
            train_attention_only(network)

    def take_text_head(self) -> Tensor | None:
        """Weights (C, n_outputs) for a classifier, once; None if it starts from random ones."""
        head, self.text_head = self.text_head, None
        return head

    def forward(self, x: Tensor) -> Tensor:
        """Features (B, n_outputs) of images (B, C, H, W)."""
        return super().forward(x if self.frozen else self.renormalise(x))

    def stages(self) -> list[Stage]:
        """patch_embed, blocks and head of a transformer; stem, layers and pooling of a ResNet; else `all`."""
        network, renormalise = self.network, self.renormalise
        first, *rest = chain_of(network) if self.is_chain else [Stage("all", network, [network])]

        def with_normalisation(x: Tensor) -> Tensor:
            return first.function(renormalise(x))

        return [replace(first, function=with_normalisation), *rest]

    def blocks(self) -> dict[str, nn.Module]:
        """The patch embedding and four blocks at equal distances; of a ResNet, its stem and four layers.

        Blocks of frozen stages are left out.
        """
        network = self.network
        if hasattr(network, "layer4"):
            found = {"stem": network.avgpool, **{name: getattr(network, name) for name in LAYERS}}
        elif hasattr(network, "transformer"):
            blocks = network.transformer.resblocks
            numbers = [len(blocks) * quarter // 4 - 1 for quarter in (1, 2, 3, 4)]
            found = {"conv1": network.conv1, **{f"blocks.{i}": blocks[i] for i in numbers if i >= 0}}
        else:
            return super().blocks()
        frozen = set(self.frozen) | ({"conv1"} if self.frozen else set())
        return {name: module for name, module in found.items() if name not in frozen}

    def freeze(self, last: str, input_shape: tuple[int, ...]) -> None:
        chain = chain_of(self.network)
        self.is_chain = bool(chain) and is_chain(self.network, chain, input_shape)
        super().freeze(last, input_shape)

    def finish(self, x: Tensor) -> Tensor:
        return super().finish(F.normalize(x, dim=-1) if self.normalises else x)


def _text_head(model: Any, name: str, hparams: dict[str, Any]) -> Tensor:  # noqa: ANN401 - open_clip's model
    """The zero-shot head (C, n_outputs) of the classes that `hparams` name."""
    names = str(option(hparams, "class_names"))
    if not names:
        raise UsageError(
            "clip_head text needs the names of the classes: give them with the hyper-parameter class_names, "
            'such as "dog, cat"'
        )
    templates = class_prompts.templates(str(option(hparams, "clip_templates")))
    prompts = class_prompts.prompts(class_prompts.class_names(names), templates)
    return class_prompts.zero_shot_head(model, tokenizer_of(name), prompts)


def chain_of(network: Any) -> list[Stage]:  # noqa: ANN401 - open_clip's image towers
    """The stages of open_clip's own image towers; none of other libraries' networks."""
    if hasattr(network, "layer4"):
        stem = [getattr(network, f"{kind}{i}") for i in (1, 2, 3) for kind in ("conv", "bn", "act")]
        stem.append(network.avgpool)
        layers = [Stage(name, getattr(network, name), [getattr(network, name)]) for name in LAYERS]
        return [
            Stage("stem", in_sequence(stem), stem),
            *layers,
            Stage("attnpool", network.attnpool, [network.attnpool]),
        ]
    if not hasattr(network, "transformer") or not hasattr(network, "_embeds"):
        return []

    def head(x: Tensor) -> Any:  # noqa: ANN401 - as above
        pooled, _ = network._pool(x)
        return pooled if network.proj is None else pooled @ network.proj

    own = [(network, name) for name in ("class_embedding", "positional_embedding")]
    after = [each for each in (network.attn_pool, network.ln_post) if each is not None]
    return [
        Stage("patch_embed", network._embeds, [network.conv1, network.patch_dropout, network.ln_pre], own),
        *(Stage(f"blocks.{i}", block, [block]) for i, block in enumerate(network.transformer.resblocks)),
        Stage("head", head, after, [(network, "proj")]),
    ]

"""Any network of timm's as a featurizer: vision transformers, ConvNeXts, towers of CLIP and DINOv2, ..."""

from __future__ import annotations

import textwrap
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from domainbed.datasets.image_transforms import IMAGENET_MEAN, IMAGENET_STD
from domainbed.errors import UsageError
from domainbed.hparams import option
from domainbed.networks.backbones import (
    Backbone,
    has_attention,
    timm_config,
    timm_network,
    tune_attention_alone,
)
from domainbed.networks.base import NO_WEIGHTS
from domainbed.networks.published import of_timm
from domainbed.networks.weights import chosen, does_not_fit, read


class TimmNetwork(Backbone):
    """A network of timm's without its last layer: the vector that this would get.

    Dropout is `vit_dropout` where there are attention layers, else `resnet_dropout`. Weights that were
    trained on images of another mean and standard deviation than ImageNet's get such images. timm adapts
    them to other sizes of the input, and to other numbers of channels than three.

    Args:
        name: timm's, with or without the tag of its weights.
        input_shape: (channels, height, width).
        hparams: holds `freeze_bn`, `resnet_dropout`, `vit_dropout`, `vit_attn_tune`; may hold `pretrained`,
            `weights_file`, and, where `name` has no tag, `weights`.

    Raises: UsageError if the network can't take such inputs, or its weights can't be had.
    """

    def __init__(self, name: str, input_shape: tuple[int, ...], hparams: dict[str, Any]) -> None:
        channels = self.channels(input_shape)
        name = _tagged(name, str(option(hparams, "weights")))
        config = timm_config(name)
        options: dict[str, Any] = {"in_chans": channels}
        if config.fixed_input_size:
            options["img_size"] = input_shape[1:]
        found = chosen(of_timm(name), hparams)
        random = partial(timm_network, name, num_classes=0, **options)
        make = partial(_pretrained, name, found[0], options) if found else random
        try:
            network, n_outputs = _tried(name, input_shape, make)
        except UsageError:
            _tried(name, input_shape, random)  # the inputs may be to blame, not the weights
            raise
        dropout = "vit_dropout" if has_attention(network) else "resnet_dropout"
        super().__init__(network, n_outputs, hparams, dropout, found[1] if found else NO_WEIGHTS)
        same = (config.mean, config.std) == (IMAGENET_MEAN, IMAGENET_STD) or channels != 3
        self.renormalise = nn.Identity() if same else Renormalise(config.mean, config.std)
        if hparams["vit_attn_tune"]:
            tune_attention_alone(network)

    def forward(self, x: Tensor) -> Tensor:
        """Images (B, C, H, W) to features (B, n_outputs)."""
        return super().forward(self.renormalise(x))


class Renormalise(nn.Module):
    """From images (B, 3, H, W) normalised as the datasets' to those normalised by `mean` and `std`."""

    scale: Tensor
    shift: Tensor

    def __init__(self, mean: tuple[float, ...], std: tuple[float, ...]) -> None:
        super().__init__()
        before, after = torch.tensor([IMAGENET_MEAN, IMAGENET_STD]), torch.tensor([mean, std])
        scale, shift = before[1] / after[1], (before[0] - after[0]) / after[1]
        self.register_buffer("scale", scale.view(3, 1, 1), persistent=False)
        self.register_buffer("shift", shift.view(3, 1, 1), persistent=False)

    def forward(self, x: Tensor) -> Tensor:
        """Images (B, 3, H, W) to images (B, 3, H, W)."""
        return x * self.scale + self.shift


def timm_featurizer(name: str) -> Callable[[tuple[int, ...], dict[str, Any]], TimmNetwork]:
    """The featurizer around timm's network "network" or "network.tag"; raises UsageError if timm has none."""
    timm_config(name)
    return partial(TimmNetwork, name)


def _tagged(name: str, tag: str) -> str:
    architecture, _, own = name.partition(".")
    if own and tag and tag != own:
        raise UsageError(f'featurizer timm:{name} names its weights: leave out "weights": "{tag}"')
    return f"{architecture}.{own or tag}".removesuffix(".")


def _tried(name: str, input_shape: tuple[int, ...], make: Callable[[], nn.Module]) -> tuple[nn.Module, int]:
    """A network and how many features it makes of such inputs; raises UsageError if it can't take them."""
    try:
        network = make().eval()
        with torch.no_grad():
            (n_outputs,) = network(torch.zeros(1, *input_shape)).shape[1:]
    except UsageError:
        raise
    except Exception as error:  # timm's networks raise a dozen classes
        reason = textwrap.shorten(f"{type(error).__name__}: {error}", 200)
        raise UsageError(
            f"featurizer timm:{name} takes images of other sizes, not inputs of shape {tuple(input_shape)} "
            f'({reason}); give another "input_size", or name another featurizer'
        ) from None
    return network, n_outputs


def _pretrained(name: str, path: Path, options: dict[str, Any]) -> nn.Module:
    """timm's network with the weights in `path`, all of them and no others, its last layer removed.

    Raises: UsageError if they are another network's.
    """
    state, config = read(path), timm_config(name)
    last = config.classifier if isinstance(config.classifier, str) else (config.classifier or ("",))[0]
    head = state.get(f"{last}.weight")
    # A file without a last layer is in another format, which timm knows, or was saved without one.
    candidates = [config.num_classes, 0] if head is None else [len(head)]
    errors = []
    for num_classes in candidates:
        # With the classes of the file timm is strict: no layer keeps its random weights.
        overlay = {"state_dict": dict(state), "num_classes": num_classes, "label_offset": 0}
        try:
            network: Any = timm_network(name, pretrained=True, pretrained_cfg_overlay=overlay, **options)
        except Exception as error:  # whatever a foreign file makes timm's conversions raise
            errors.append(error)
            continue
        del network.pretrained_cfg["state_dict"]
        network.reset_classifier(0)
        loaded: nn.Module = network
        return loaded
    raise does_not_fit(path, of_timm(name), errors[0])

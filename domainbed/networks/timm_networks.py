"""Any network of timm as a featurizer: vision transformers, ConvNeXts, the image encoders of CLIP, ..."""

from __future__ import annotations

import textwrap
from collections.abc import Callable
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from domainbed.datasets.image_transforms import IMAGENET_MEAN, IMAGENET_STD
from domainbed.errors import UsageError
from domainbed.hparams import option
from domainbed.networks.backbones import Backbone, has_attention, train_attention_only
from domainbed.networks.base import NO_WEIGHTS
from domainbed.networks.checkpoint_names import own_names
from domainbed.networks.default_weights import WeightsSource
from domainbed.networks.libraries import timm_config, timm_network
from domainbed.networks.options import reads
from domainbed.networks.published import of_timm
from domainbed.networks.stages import Stage
from domainbed.networks.timm_stages import chain_of, is_chain
from domainbed.networks.weights import mismatch, read, weights_file, with_changes

MOST_BLOCKS = 5
"""Number of blocks whose features methods look at, where a network tells more."""


@reads("pretrained", "weights", "weights_file", "layout")
class TimmNetwork(Backbone):
    """A network of timm without its last layer. The features are the inputs of that layer.

    The dropout probability is `vit_dropout` for networks with attention layers, else `resnet_dropout`. If the
    weights were trained on images normalised differently from ours, images are normalised that way. timm
    adapts the weights to the size of the input and its number of channels.

    Args:
        name: timm's name of the network, with or without the tag of its weights.
        input_shape: (channels, height, width).
        hparams: `freeze_bn`, `resnet_dropout`, `vit_dropout`, `vit_attn_tune`; optionally `pretrained`,
            `weights_file`, and, if `name` has no tag, `weights`.
        source: the weights to start from, in timm's format; by default those that timm lists under `name`.

    Raises: UsageError if the network cannot take such inputs, or its weights are not available.
    """

    is_chain = False
    """Whether the network is known to be a chain of modules. Found out when a stage is to be frozen."""

    def __init__(
        self,
        name: str,
        input_shape: tuple[int, ...],
        hparams: dict[str, Any],
        source: WeightsSource | None = None,
    ) -> None:
        channels = self.channels(input_shape)
        name = name if source else _with_tag(name, str(option(hparams, "weights")))
        config = timm_config(name)
        options: dict[str, Any] = {"in_chans": channels}
        if config.fixed_input_size:
            options["img_size"] = input_shape[1:]
        source = source or of_timm(name)
        found = weights_file(source, hparams)
        random = partial(timm_network, name, num_classes=0, **options)
        make, provenance = random, NO_WEIGHTS
        if found:
            path, provenance = found
            state, changes = self._state_in(path, config)
            provenance = with_changes(provenance, changes, hparams)
            make = partial(self._pretrained, name, state, path, source, options)
        try:
            network, n_outputs = _checked(name, input_shape, make)
        except UsageError:
            _checked(name, input_shape, random)  # raises if the cause is the inputs, not the weights
            raise
        dropout = "vit_dropout" if has_attention(network) else "resnet_dropout"
        super().__init__(network, n_outputs, hparams, dropout, provenance)
        same = (config.mean, config.std) == (IMAGENET_MEAN, IMAGENET_STD) or channels != 3
        self.renormalise = nn.Identity() if same else Renormalise(config.mean, config.std)
        if hparams["vit_attn_tune"]:
            train_attention_only(network)

    def forward(self, x: Tensor) -> Tensor:
        """Features (B, n_outputs) of images (B, C, H, W)."""
        return super().forward(x if self.frozen else self.renormalise(x))

    def stages(self) -> list[Stage]:
        """The children of timm's network and of its containers; `all` alone if it is not a chain of them."""
        network, renormalise = self.network, self.renormalise
        if self.is_chain:
            first, *rest = chain_of(network)
        else:
            first, rest = Stage("all", network, [network]), []

        def with_normalisation(x: Tensor) -> Tensor:
            return first.function(renormalise(x))

        return [replace(first, function=with_normalisation), *rest]

    def blocks(self) -> dict[str, nn.Module]:
        """The blocks of timm's `feature_info`; of more than five, the stem and four at equal distances.

        Blocks of frozen stages are left out. Those of `stages` if timm does not tell any.
        """
        names = [each["module"] for each in getattr(self.network, "feature_info", ())]
        if not names:
            return super().blocks()
        if len(names) > MOST_BLOCKS:
            names = [names[len(names) * quarter // 4 - 1] for quarter in (1, 2, 3, 4)]
            names = ["patch_embed", *names] if hasattr(self.network, "patch_embed") else names
        modules = {name: self.network.get_submodule(name) for name in names}
        if not self.frozen:
            return modules
        return {name: each for name, each in modules.items() if any(True for _ in each.parameters())}

    def freeze(self, last: str, input_shape: tuple[int, ...]) -> None:
        self.is_chain = is_chain(self.network, chain_of(self.network), input_shape)
        super().freeze(last, input_shape)

    @classmethod
    def with_timms_format(cls, state: dict[str, Tensor]) -> dict[str, Tensor]:
        """A state dict in a format that timm can load; by default `state` itself."""
        return state

    @classmethod
    def _state_in(cls, path: Path, config: Any) -> tuple[dict[str, Tensor], str]:  # noqa: ANN401 - timm's
        """The state dict in a file of weights, and what was changed of it, in words.

        A last layer that is not a linear one, such as MoCo's projection, is left out.
        """
        own = own_names(read(path))
        last = _last_layer(config)
        is_linear = {name for name in own.state if name.startswith(f"{last}.")} <= {
            f"{last}.weight",
            f"{last}.bias",
        }
        own, changes = own.without(() if is_linear or not last else (f"{last}.",))
        return cls.with_timms_format(own.state), changes

    @classmethod
    def _pretrained(
        cls, name: str, state: dict[str, Tensor], path: Path, source: WeightsSource, options: dict[str, Any]
    ) -> nn.Module:
        """timm's network with all weights in `state` and no random ones, without its last layer.

        Args:
            name: timm's name of the network.
            state: the state dict in `path`.
            path: the file, for messages.
            source: the published weights, for messages.
            options: options for timm.

        Raises: UsageError if they are the weights of another network.
        """
        config = timm_config(name)
        head = state.get(f"{_last_layer(config)}.weight")
        # A file without the last layer was saved without one, or is in another format that timm can convert.
        candidates = [config.num_classes, 0] if head is None else [len(head)]
        errors = []
        for num_classes in candidates:
            # With the file's number of classes, timm loads strictly: no layer keeps random weights.
            overlay = {"state_dict": dict(state), "num_classes": num_classes, "label_offset": 0}
            try:
                network: Any = timm_network(name, pretrained=True, pretrained_cfg_overlay=overlay, **options)
            except Exception as error:  # timm's conversions raise many classes for files of other formats
                errors.append(error)
                continue
            del network.pretrained_cfg["state_dict"]
            network.reset_classifier(0)
            loaded: nn.Module = network
            return loaded
        raise mismatch(path, source, errors[0])


class Renormalise(nn.Module):
    """Change the normalisation of images (B, 3, H, W) from ImageNet's mean and std to `mean` and `std`."""

    scale: Tensor
    shift: Tensor

    def __init__(self, mean: tuple[float, ...], std: tuple[float, ...]) -> None:
        super().__init__()
        before, after = torch.tensor([IMAGENET_MEAN, IMAGENET_STD]), torch.tensor([mean, std])
        scale, shift = before[1] / after[1], (before[0] - after[0]) / after[1]
        self.register_buffer("scale", scale.view(3, 1, 1), persistent=False)
        self.register_buffer("shift", shift.view(3, 1, 1), persistent=False)

    def forward(self, x: Tensor) -> Tensor:
        """Renormalised images (B, 3, H, W)."""
        return x * self.scale + self.shift


def timm_featurizer(name: str) -> Callable[[tuple[int, ...], dict[str, Any]], TimmNetwork]:
    """The featurizer class for timm's network "network" or "network.tag".

    Raises: UsageError if timm is not installed or does not know the network.
    """
    timm_config(name)
    return partial(TimmNetwork, name)


def _last_layer(config: Any) -> str:  # noqa: ANN401 - timm's PretrainedCfg
    """Name of a network's last layer; the first one if it has several, empty if timm tells none."""
    return config.classifier if isinstance(config.classifier, str) else (config.classifier or ("",))[0]


def _with_tag(name: str, tag: str) -> str:
    architecture, _, own = name.partition(".")
    if own and tag and tag != own:
        raise UsageError(f'featurizer timm:{name} already names its weights: leave out "weights": "{tag}"')
    return f"{architecture}.{own or tag}".removesuffix(".")


def _checked(name: str, input_shape: tuple[int, ...], make: Callable[[], nn.Module]) -> tuple[nn.Module, int]:
    """The network from `make` and its number of features. Raises UsageError if it rejects such inputs."""
    try:
        network = make().eval()
        with torch.no_grad():
            (n_outputs,) = network(torch.zeros(1, *input_shape)).shape[1:]
    except UsageError:
        raise
    except Exception as error:  # timm's networks raise many classes of exceptions
        reason = textwrap.shorten(f"{type(error).__name__}: {error}", 200)
        raise UsageError(
            f"featurizer timm:{name} takes images of other sizes, not inputs of shape {tuple(input_shape)} "
            f'({reason}); choose another "input_size" or featurizer'
        ) from None
    return network, n_outputs

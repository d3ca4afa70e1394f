"""Hyper-parameters of featurizers that no algorithm's table has: they may be given, and have defaults."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from domainbed.errors import UsageError, check_choice
from domainbed.hparams import OPTIONS, Hparam, Kind, Value, const

OPTIONS["featurizer"] = Hparam("auto", const("auto"), "name of the featurizer; auto: by the input's shape")
OPTIONS["mlp_width"] = Hparam(256, const(256), "units of a hidden layer of the MLP featurizer")
OPTIONS["mlp_depth"] = Hparam(3, const(3), "layers of the MLP featurizer, at least 2")
OPTIONS["mlp_dropout"] = Hparam(0.0, const(0.0), "dropout in the MLP featurizer")
OPTIONS["pretrained"] = Hparam(
    True, const(True), "start from weights trained on ImageNet, where there are any"
)
OPTIONS["weights"] = Hparam(
    "", const(""), "tag of the weights of a ResNet or an AlexNet, such as IMAGENET1K_V2; empty: upstream's"
)
OPTIONS["weights_file"] = Hparam("", const(""), "state dict to start from; empty: from torch's hub cache")
OPTIONS["layout"] = Hparam(
    "auto",
    const("auto"),
    "memory layout of images in ResNets, AlexNet and timm's networks: auto (fastest) or plain",
    kind=Kind.INCIDENTAL,
)
OPTIONS["parity_init"] = Hparam(
    False, const(False), "draw upstream's discarded ResNet too, for its very classifier"
)
OPTIONS["preset"] = Hparam(
    "none", const("none"), "several hyper-parameters by one name: published, the ResNet of DomainBed's tables"
)

PRESETS: Mapping[str, Mapping[str, Value]] = {
    "none": {},
    # Gulrajani and Lopez-Paz 2021: torchvision's ResNet-50 as it was then, batch norms frozen.
    "published": {
        "resnet18": False,
        "resnet50_augmix": False,
        "weights": "IMAGENET1K_V1",
        "freeze_bn": True,
    },
}


def with_preset(overrides: Mapping[str, object]) -> dict[str, object]:
    """`overrides` and, before them, those that their `preset` stands for; UsageError for an unknown one."""
    preset = overrides.get("preset", "none")
    check_choice("hyper-parameter preset is", preset, PRESETS)
    return {**PRESETS[str(preset)], **overrides}


def option(hparams: Mapping[str, Any], name: str) -> Value:
    """The value that a run gives to an optional hyper-parameter, or its default."""
    value: Value = hparams.get(name, OPTIONS[name].default)
    return value


def dropout_rate(name: str, rate: float) -> float:
    """`rate`, the value of hyper-parameter `name`, if it is one; raises `UsageError` if not."""
    if not 0 <= rate <= 1:
        raise UsageError(f"hyper-parameter {name} is a probability between 0 and 1, not {rate}")
    return float(rate)

"""Optional hyper-parameters of featurizers."""

from __future__ import annotations

from collections.abc import Mapping

from domainbed.errors import UsageError
from domainbed.hparams import OPTIONS, Hparam, Kind, Value, const, option

OPTIONS["featurizer"] = Hparam(
    "auto", const("auto"), "name of the featurizer; auto: chosen by the input's shape"
)
OPTIONS["mlp_width"] = Hparam(256, const(256), "units of a hidden layer of the MLP featurizer", at_least=1)
OPTIONS["mlp_depth"] = Hparam(3, const(3), "layers of the MLP featurizer", at_least=2)
OPTIONS["mlp_dropout"] = Hparam(0.0, const(0.0), "dropout in the MLP featurizer", at_least=0, at_most=1)
OPTIONS["pretrained"] = Hparam(True, const(True), "start from weights trained on ImageNet, if there are any")
OPTIONS["weights"] = Hparam(
    "", const(""), "tag of the weights of a ResNet or an AlexNet, such as IMAGENET1K_V2; empty: upstream's"
)
OPTIONS["weights_file"] = Hparam(
    "", const(""), "file of the state dict to start from; empty: from torch's hub cache"
)
OPTIONS["layout"] = Hparam(
    "auto",
    const("auto"),
    "memory layout of images in ResNets, AlexNet and timm's networks: auto (fastest) or plain",
    choices=("auto", "plain"),
    kind=Kind.INCIDENTAL,
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


OPTIONS["parity_init"] = Hparam(
    False, const(False), "draw upstream's discarded ResNet too, so that the classifier is upstream's"
)
OPTIONS["preset"] = Hparam(
    "none",
    const("none"),
    "a set of hyper-parameters by name; published: those of the ResNet in DomainBed's tables",
    choices=tuple(PRESETS),
)


def with_preset(overrides: Mapping[str, object]) -> dict[str, object]:
    """`overrides`, preceded by the hyper-parameters of their `preset`; UsageError for an unknown preset."""
    return {**PRESETS[str(option(overrides, "preset"))], **overrides}


def dropout_rate(name: str, rate: float) -> float:
    """`rate`, the value of hyper-parameter `name`, if it is one; raises `UsageError` if not."""
    if not 0 <= rate <= 1:
        raise UsageError(f"hyper-parameter {name} is a probability between 0 and 1, not {rate}")
    return float(rate)

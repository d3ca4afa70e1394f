"""Optional hyper-parameters of featurizers, and presets."""

from __future__ import annotations

from collections.abc import Mapping

from domainbed.hparams import OPTIONS, Hparam, Kind, Value, const, option

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
"""Values that each value of the hyper-parameter `preset` stands for."""

OPTIONS["featurizer"] = Hparam(
    "auto", const("auto"), "name of the featurizer; auto: selected by the input shape"
)
OPTIONS["mlp_width"] = Hparam(256, const(256), "units of a hidden layer of the MLP featurizer", at_least=1)
OPTIONS["mlp_depth"] = Hparam(3, const(3), "number of layers of the MLP featurizer", at_least=2)
OPTIONS["mlp_dropout"] = Hparam(
    0.0, const(0.0), "dropout probability in the MLP featurizer", at_least=0, at_most=1
)
OPTIONS["pretrained"] = Hparam(True, const(True), "start from ImageNet weights if the featurizer has any")
OPTIONS["freeze"] = Hparam(
    "none",
    const("none"),
    "last frozen stage of the featurizer; none: all stages are trained, all: only the classifier is",
)
OPTIONS["weights"] = Hparam(
    "", const(""), "tag of the weights of a ResNet or an AlexNet, such as IMAGENET1K_V2; empty: upstream's"
)
OPTIONS["weights_file"] = Hparam(
    "", const(""), "path of a state dict to start from; empty: the weights in torch's hub cache"
)
OPTIONS["layout"] = Hparam(
    "auto",
    const("auto"),
    "memory layout of images in ResNets, AlexNet and timm's networks: auto (fastest) or plain",
    choices=("auto", "plain"),
    kind=Kind.INCIDENTAL,
)
OPTIONS["parity_init"] = Hparam(
    False,
    const(False),
    "initialise the classifier exactly as upstream, which builds and discards another ResNet first",
)
OPTIONS["preset"] = Hparam(
    "none",
    const("none"),
    "a named set of hyper-parameters: published, the ResNet of DomainBed's tables",
    choices=tuple(PRESETS),
)


def with_preset(overrides: Mapping[str, object]) -> dict[str, object]:
    """`overrides` with the values of their `preset` added; values in `overrides` take precedence.

    Raises: UsageError for an unknown preset.
    """
    return {**PRESETS[str(option(overrides, "preset"))], **overrides}

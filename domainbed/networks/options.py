"""Optional hyper-parameters of featurizers, and presets."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import TypeVar

from domainbed.hparams import OPTIONS, Hparam, Kind, Reader, Value, const, option

T = TypeVar("T")

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
OPTIONS["mlp_width"] = Hparam(
    256, const(256), "units of a hidden layer of the MLP featurizer", at_least=1, reader=Reader.FEATURIZER
)
OPTIONS["mlp_depth"] = Hparam(
    3, const(3), "number of layers of the MLP featurizer", at_least=2, reader=Reader.FEATURIZER
)
OPTIONS["mlp_dropout"] = Hparam(
    0.0,
    const(0.0),
    "dropout probability in the MLP featurizer",
    at_least=0,
    at_most=1,
    reader=Reader.FEATURIZER,
)
OPTIONS["pretrained"] = Hparam(True, const(True), "start from ImageNet weights if the featurizer has any")
OPTIONS["freeze"] = Hparam(
    "none",
    const("none"),
    "last frozen stage of the featurizer; none: all stages are trained, all: only the classifier is",
)
OPTIONS["weights"] = Hparam(
    "",
    const(""),
    "tag of the weights of a ResNet or an AlexNet, such as IMAGENET1K_V2; empty: upstream's",
    reader=Reader.FEATURIZER,
)
OPTIONS["weights_file"] = Hparam(
    "",
    const(""),
    "path of a state dict to start from; empty: the weights in torch's hub cache",
    reader=Reader.FEATURIZER,
    only_if=("pretrained", True),
    file_suffix="",
)
OPTIONS["layout"] = Hparam(
    "auto",
    const("auto"),
    "memory layout of images in ResNets, AlexNet and timm's networks: auto (fastest) or plain",
    choices=("auto", "plain"),
    kind=Kind.INCIDENTAL,
    reader=Reader.FEATURIZER,
)
OPTIONS["parity_init"] = Hparam(
    False,
    const(False),
    "initialise the classifier exactly as upstream, which builds and discards another ResNet first",
    reader=Reader.FEATURIZER,
)
OPTIONS["clip_model"] = Hparam(
    "ViT-B-16-quickgelu",
    const("ViT-B-16-quickgelu"),
    "CLIP: name of a model in open_clip, path of a JSON configuration, or tiny (random, for tests)",
    reader=Reader.FEATURIZER,
    file_suffix=".json",
)
OPTIONS["clip_normalise"] = Hparam(
    "auto",
    const("auto"),
    "CLIP: whether image embeddings are normalised; auto: if the classifier starts from text",
    choices=("auto", "yes", "no"),
    reader=Reader.FEATURIZER,
)
OPTIONS["clip_head"] = Hparam(
    "random",
    const("random"),
    "CLIP: initial weights of the classifier: random, or text (embeddings of the classes' names)",
    choices=("random", "text"),
    reader=Reader.FEATURIZER,
)
OPTIONS["clip_templates"] = Hparam(
    "a photo of a {}.",
    const("a photo of a {}."),
    "CLIP: prompts for a class: templates with {}, separated by |, or simple (7), imagenet (80)",
    reader=Reader.FEATURIZER,
    only_if=("clip_head", "text"),
)
OPTIONS["class_names"] = Hparam(
    "",
    const(""),
    "CLIP: names of the classes, separated by commas, in the order of labels; empty: the dataset's",
    reader=Reader.FEATURIZER,
    only_if=("clip_head", "text"),
)
OPTIONS["preset"] = Hparam(
    "none",
    const("none"),
    "a named set of hyper-parameters: published, the ResNet of DomainBed's tables",
    choices=tuple(PRESETS),
    kind=Kind.INCIDENTAL,  # the hyper-parameters that it sets are recorded themselves
    reader=Reader.FEATURIZER,
)


def with_preset(overrides: Mapping[str, object]) -> dict[str, object]:
    """`overrides` with the values of their `preset` added; values in `overrides` take precedence.

    Raises: UsageError for an unknown preset.
    """
    return {**PRESETS[str(option(overrides, "preset"))], **overrides}


def reads(*names: str) -> Callable[[T], T]:
    """Decorator that declares which optional hyper-parameters a featurizer reads, as its attribute `READS`.

    A run of this featurizer refuses other options for featurizers. One without the declaration may read any.
    """

    def declare(featurizer: T) -> T:
        setattr(featurizer, "READS", names)  # noqa: B010 - functions have no such attribute for mypy
        return featurizer

    return declare

"""CLIP without training: each class is a few prompts with its name."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, Self

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from domainbed import networks
from domainbed.algorithms import REGISTRY
from domainbed.algorithms.base import Algorithm, Metrics, Minibatch, concatenate, scalar
from domainbed.algorithms.facts import Facts
from domainbed.algorithms.optimizers import CHOICE
from domainbed.hparams import OPTIONS, Hparam, const, option
from domainbed.networks.class_prompts import text_of_names


def _model(dataset: str) -> Hparam:
    """The model of CLIP; for random images a tiny one with random weights."""
    name = "tiny" if "Debug" in dataset else "ViT-B-16-quickgelu"
    meaning = "CLIP: model of open_clip, path of a JSON configuration, or tiny"
    return Hparam(name, const(name), meaning, file_suffix=".json")


@REGISTRY.register()
class CLIPZeroShot(Algorithm):
    """Zero-shot CLIP (Radford et al. 2021, arXiv 2103.00020, section 3.1): no weight is trained.

    The logit of a class is exp(s) times the cosine between the image's embedding and the class's direction:
    the normalised mean of the normalised text embeddings of its prompts, with s CLIP's `logit_scale`. Prompts
    are `clip_templates` with the class's name, in which underscores become spaces.

    It always is in evaluation mode. An update computes the loss on its minibatches, for the records, and
    changes nothing, so that one update (`--steps 1`) gives all results.

    Args:
        input_shape: (channels, height, width).
        num_classes: number of classes.
        num_domains: number of source environments, of no consequence.
        hparams: those of `domainbed.networks.clip.Clip`. Classes without `class_names` are called 0, 1, ...

    Attributes:
        featurizer: maps images to normalised embeddings (B, D).
        head: weights (C, D) of the linear classifier that text embeddings make.

    Raises: UsageError if `class_names` are not as many as the classes, or CLIP is not available.
    """

    FACTS = Facts(
        year=2021,
        paper=(
            "Radford et al., Learning transferable visual models from natural language supervision, ICML, "
            "arXiv 2103.00020"
        ),
        idea="CLIP's text embeddings of the classes' names classify its image embeddings; nothing is trained",
        time="1/3",
        memory="-3",
        cost="A forward pass for each update, which is for the records only: one update is enough.",
        pretrained=True,
    )

    FEATURIZER = "clip"
    TRAINS = False
    NAMES_CLASSES = True
    HPARAMS = {"clip_model": _model}
    SWITCHES = {name: OPTIONS[name] for name in ("clip_templates", "class_names")}

    head: Tensor

    def __init__(
        self, input_shape: tuple[int, ...], num_classes: int, num_domains: int, hparams: dict[str, Any]
    ) -> None:
        super().__init__(input_shape, num_classes, num_domains, hparams)
        names = str(option(hparams, "class_names")) or text_of_names([str(i) for i in range(num_classes)])
        of_clip: dict[str, Any] = {"featurizer": "clip", "freeze": "none", "class_names": names}
        of_clip |= {"clip_head": "text", "clip_normalise": "yes", "vit_attn_tune": False}
        self.featurizer = networks.Featurizer(input_shape, {**hparams, **of_clip})
        classifier = nn.Linear(self.featurizer.n_outputs, num_classes)
        networks.start_from_text(classifier, self.featurizer)
        self.register_buffer("head", classifier.weight.detach().clone())
        self.requires_grad_(False)
        self.eval()

    @classmethod
    def unread_hparams(cls, given: Mapping[str, object]) -> dict[str, str]:
        names = (
            "clip_head",
            "clip_normalise",
            "freeze",
            "lr",
            "weight_decay",
            "schedule",
            "warmup_steps",
            "weight_averaging",
            *CHOICE,
        )
        reasons = dict.fromkeys(names, f"{cls.__name__} trains nothing")
        if given.get("featurizer", "clip") != "clip":
            reasons["featurizer"] = f"{cls.__name__} always has the featurizer clip"
        return super().unread_hparams(given) | reasons

    def train(self, mode: bool = True) -> Self:
        """Stay in evaluation mode."""
        return super().train(False)

    @torch.no_grad()
    def update(self, minibatches: Sequence[Minibatch], unlabeled: Sequence[Tensor] | None = None) -> Metrics:
        x, y = concatenate(minibatches)
        return {"loss": scalar(F.cross_entropy(self.predict(x), y))}

    def predict(self, x: Tensor) -> Tensor:
        embeddings: Tensor = self.featurizer(x)
        return F.linear(embeddings, self.head)

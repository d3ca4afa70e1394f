"""Prompts for the classes of a dataset, and the zero-shot head that text embeddings of them make."""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from domainbed.errors import UsageError

Tokenizer = Callable[[list[str]], Tensor]
"""Texts -> token numbers (B, context length), int64."""

TEMPLATE_SETS = {"simple": "SIMPLE_IMAGENET_TEMPLATES", "imagenet": "OPENAI_IMAGENET_TEMPLATES"}
"""Sets of templates by name -> their names in open_clip: 7 and 80 templates."""


def text_of_names(names: Sequence[str]) -> str:
    """Names of classes as one text, for the hyper-parameter `class_names`."""
    is_plain = all(name and name == name.strip() and "," not in name for name in names)
    if is_plain and not names[0].startswith("["):
        return ", ".join(names)
    return json.dumps(list(names), ensure_ascii=False)


def class_names(text: str) -> list[str]:
    """The names in `text`: separated by commas, or as a JSON list.

    Raises: UsageError for an empty name, or JSON that is no list of texts.
    """
    try:
        names = json.loads(text) if text.startswith("[") else [each.strip() for each in text.split(",")]
    except ValueError as error:
        raise UsageError(f"class_names is no JSON list: {error}") from None
    if not all(isinstance(each, str) and each for each in names):
        raise UsageError(
            f'class_names takes names separated by commas, such as "dog, cat", or a JSON list, not {text!r}'
        )
    return list(names)


def templates(text: str) -> list[Callable[[str], str]]:
    """The templates that the hyper-parameter `clip_templates` means.

    Args:
        text: a name in `TEMPLATE_SETS`, or one template or several, separated by "|", with {} for the class.

    Raises: UsageError for a text without {}.
    """
    if text in TEMPLATE_SETS:
        import open_clip

        return list(getattr(open_clip, TEMPLATE_SETS[text]))
    parts = [each.strip() for each in text.split("|")]
    if not all(each.count("{}") == 1 for each in parts):
        raise UsageError(
            f"clip_templates takes {', '.join(TEMPLATE_SETS)}, or a template such as 'a photo of a {{}}.', "
            f"with {{}} for the name of the class, not {text!r}"
        )
    return [lambda name, part=part: part.replace("{}", name) for part in parts]  # type: ignore[misc] # a default


def prompts(names: Sequence[str], templates: Sequence[Callable[[str], str]]) -> list[list[str]]:
    """For each class its prompts, one for each template. Underscores in names become spaces."""
    return [[template(name.replace("_", " ")) for template in templates] for name in names]


def class_directions(embeddings: Tensor) -> Tensor:
    """The class's directions (C, D) of text embeddings (C, T, D) of its T prompts.

    Normalised means of the normalised embeddings (Radford et al. 2021, arXiv 2103.00020, section 3.1.4).
    """
    return F.normalize(F.normalize(embeddings, dim=-1).mean(dim=1), dim=-1)


@torch.no_grad()
def zero_shot_head(
    model: Any,  # noqa: ANN401 - open_clip's models are not annotated
    tokenizer: Tokenizer,
    prompts: Sequence[Sequence[str]],
) -> Tensor:
    """Weights (C, D) of a linear classifier on normalised image embeddings whose logits are CLIP's.

    They are exp(s) times `class_directions`, with s the model's `logit_scale`. A bias of SigLIP models, which
    is the same for all classes, is left out.

    Args:
        model: a CLIP model of open_clip, on the CPU.
        tokenizer: its tokenizer.
        prompts: the prompts of each class, equally many.
    """
    training = model.training
    model.eval()
    # One class at a time, because 345 classes of 80 prompts would take gigabytes.
    embeddings = torch.stack([model.encode_text(tokenizer(list(each))) for each in prompts])
    model.train(training)
    scale: Tensor = model.logit_scale.detach().exp()
    return scale * class_directions(embeddings)

"""CLIP models of open_clip: architectures, published weights, tokenizers."""

from __future__ import annotations

import contextlib
import copy
import functools
import json
import logging
from collections.abc import Iterator, Mapping
from pathlib import Path
from types import ModuleType
from typing import Any

from torch import nn

from domainbed.datasets.image_transforms import IMAGENET_MEAN, IMAGENET_STD
from domainbed.errors import UnknownName, UsageError, misspelt
from domainbed.escaping import shortened
from domainbed.networks.class_prompts import Tokenizer
from domainbed.networks.default_weights import WeightsSource
from domainbed.networks.published import Pretrained
from domainbed.networks.weights import mismatch, read

DEFAULT_MODEL = "ViT-B-16-quickgelu"
DEFAULT_TAG = "openai"
TINY = "tiny"
"""Name of an architecture of 33,000 parameters in the image tower, for tests. It has random weights only."""

_TINY: Mapping[str, Any] = {
    "embed_dim": 16,
    "vision_cfg": {"image_size": 32, "patch_size": 8, "width": 32, "layers": 2, "head_width": 16},
    "text_cfg": {"context_length": 16, "vocab_size": 49408, "width": 32, "heads": 2, "layers": 2},
}


def require_open_clip() -> ModuleType:
    """The package open_clip. Raises UsageError if it is not installed."""
    try:
        import open_clip
    except ImportError:
        raise UsageError(
            "CLIP needs the package open_clip_torch: pip install 'domainbed-gs[clip]', or choose the image "
            'tower alone from timm, such as "featurizer": "timm:vit_base_patch16_clip_224.openai"'
        ) from None
    module: ModuleType = open_clip
    return module


def architecture(name: str) -> dict[str, Any]:
    """open_clip's configuration of a model.

    Args:
        name: a name in open_clip, `TINY`, or the path of a JSON file with a configuration, possibly under the
            key "model_cfg" as in `open_clip_config.json`; or `contents_of` such a file.

    Raises: UnknownName for an unknown name; UsageError if the file has no such configuration.
    """
    if name == TINY:
        return copy.deepcopy(dict(_TINY))
    open_clip = require_open_clip()
    if _is_own(name):
        return _own_configuration(name)
    with _quiet():
        found = open_clip.get_model_config(name) if name in open_clip.list_models() else None
    if found is None:
        raise UnknownName("CLIP model", name, [*open_clip.list_models(), TINY])
    return dict(found)


def contents_of(name: str) -> str:
    """What a run keeps of `name`: the configuration in a file as JSON, which stays when the file is gone.

    Other names are returned as they are. Raises: as `architecture`.
    """
    return json.dumps(_own_configuration(name)) if name.endswith(".json") else name


def shown(name: str) -> str:
    """`name` as messages have it: the contents of a file in short."""
    return shortened(name) if name.startswith("{") else name


def _is_own(name: str) -> bool:
    """Whether `name` is a configuration of the user's: the path of its file, or its contents."""
    return name.endswith(".json") or name.startswith("{")


def _own_configuration(name: str) -> dict[str, Any]:
    try:
        text = name if name.startswith("{") else Path(name).expanduser().read_text(encoding="utf-8")
        content = json.loads(text)
        config = content.get("model_cfg", content)
        if config.keys() >= {"embed_dim", "vision_cfg", "text_cfg"}:
            return dict(config)
        reason = "it lacks embed_dim, vision_cfg or text_cfg"
    except OSError as error:
        reason = error.strerror or str(error)
    except (ValueError, AttributeError) as error:
        reason = str(error)
    raise UsageError(f"clip_model {shown(name)} is no configuration of open_clip: {reason}")


def published(name: str, tag: str) -> WeightsSource:
    """open_clip's weights `tag` of the model `name`, in the caches or on their hub.

    Args:
        name: as for `architecture`.
        tag: empty for OpenAI's. Without weights, such as those of a configuration of yours, also empty.

    Raises: UsageError for an unknown tag, or one of a model with the other kind of GELU.
    """
    if name == TINY or _is_own(name):
        if tag:
            raise UsageError(
                f'clip_model {shown(name)} has no published weights: leave out "weights": "{tag}"'
            )
        return Pretrained(f"open_clip {shown(name)}", "", ())
    open_clip = require_open_clip()
    tags = open_clip.list_pretrained_tags_by_model(name)
    tag = tag or DEFAULT_TAG
    if tag not in tags:
        raise misspelt(f"open_clip has no weights {tag!r} of {name}", tag, tags)
    config = open_clip.get_pretrained_cfg(name, tag)
    _check_gelu(name, tag, bool(config.get("quick_gelu", False)))
    url = str(config.get("url", ""))
    files = [f"{name}.{tag}.safetensors", f"{name}.{tag}.pt"]
    repository, _, filename = str(config.get("hf_hub", "")).rpartition("/")
    if repository:
        from huggingface_hub import hf_hub_url

        filename = filename or "open_clip_model.safetensors"
        url = hf_hub_url(repository, filename)
    elif url:
        files.append(url.rpartition("/")[2])
    return Pretrained(f"open_clip {name} ({tag})", url, tuple(files), repository, filename)


def _check_gelu(name: str, tag: str, quick: bool) -> None:
    if bool(architecture(name).get("quick_gelu", False)) != quick:
        other = f"{name}-quickgelu" if quick else name.removesuffix("-quickgelu")
        raise UsageError(
            f"the weights {tag} of {name} were trained with {'QuickGELU' if quick else 'GELU'}, and {name} "
            f'computes the other: use "clip_model": "{other}"'
        )


def normalisation(name: str, tag: str) -> tuple[tuple[float, ...], tuple[float, ...]]:
    """Mean and standard deviation of the images that the weights were trained on. (3,) each.

    Those of OpenAI's models where nothing else is known; ImageNet's, as in our datasets, for `TINY`.
    """
    if name == TINY:
        return IMAGENET_MEAN, IMAGENET_STD
    open_clip = require_open_clip()
    config = {} if _is_own(name) else open_clip.get_pretrained_cfg(name, tag or DEFAULT_TAG)
    mean, std = open_clip.OPENAI_DATASET_MEAN, open_clip.OPENAI_DATASET_STD
    return tuple(config.get("mean", mean)), tuple(config.get("std", std))


def new_model(name: str, sides: tuple[int, int], path: Path | None, source: WeightsSource) -> Any:  # noqa: ANN401 - open_clip's models are not annotated
    """A new CLIP model with both towers, on the CPU.

    Args:
        name: as for `architecture`.
        sides: height and width of its images. Position embeddings of transformers are interpolated to them.
        path: file with the weights of both towers; None for random ones.
        source: the weights in `path`, for messages.

    Raises: UsageError if the model cannot take such images, or `path` has the weights of another one.
    """
    open_clip, config = require_open_clip(), architecture(name)
    if "multimodal_cfg" in config:
        raise UsageError(
            f"clip_model {shown(name)} is a CoCa model, which also generates text; choose another one"
        )
    vision, text = config["vision_cfg"], config["text_cfg"]
    vision["image_size"] = sides[0] if sides[0] == sides[1] else sides
    if "timm_model_name" in vision:
        vision["timm_model_pretrained"] = False
    if "hf_model_name" in text:
        text["hf_model_pretrained"] = False
    is_custom = config.pop("custom_text", False) or "hf_model_name" in text
    with _quiet():
        try:
            model: nn.Module = (open_clip.CustomTextCLIP if is_custom else open_clip.CLIP)(**config)
        except Exception as error:  # a configuration of a user's, or images that the network cannot take
            raise UsageError(
                f"clip_model {shown(name)} cannot be built for images of {sides[0]}x{sides[1]} pixels: "
                f"{type(error).__name__}: {error}"
            ) from None
        if path is not None:
            try:
                open_clip.load_checkpoint(model, str(path))
            except Exception as error:  # raises many classes for files of other networks
                read(path)  # raises if the file is damaged
                raise mismatch(path, source, error) from None
    return model


@functools.cache
def tokenizer_of(name: str) -> Tokenizer:
    """The tokenizer of a model: texts to token numbers (B, context length), int64.

    Raises: UsageError if it has to be downloaded and cannot be.
    """
    open_clip = require_open_clip()
    text = architecture(name)["text_cfg"]
    with _quiet():
        if name == TINY or (_is_own(name) and "hf_tokenizer_name" not in text):
            made: Tokenizer = open_clip.SimpleTokenizer(context_length=text["context_length"])
            return made
        try:
            of_library: Tokenizer = open_clip.get_tokenizer(name)
        except Exception as error:  # those of other libraries are downloaded
            raise UsageError(f"the tokenizer of clip_model {shown(name)} is not available: {error}") from None
        return of_library


@contextlib.contextmanager
def _quiet() -> Iterator[None]:
    """Drop what open_clip logs inside the context. Its first line would set up logging for all."""
    handler = logging.NullHandler()
    logging.root.addHandler(handler)
    try:
        yield
    finally:
        logging.root.removeHandler(handler)

"""Trained weights as safetensors, with a JSON file beside it: no pickle, and readable without this package.

`model.safetensors` is the state dict of the algorithm. `model.json` has what else `model.pkl` has, and
`shared`: names that share their tensor with another one, which is stored once, under the other name.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor

from domainbed.errors import RunError, UsageError
from domainbed.files import open_atomic
from domainbed.json_input import parse_json
from domainbed.training.model_file import SavedModel, build_model, contents_of

if TYPE_CHECKING:
    from types import ModuleType

SUFFIX = ".safetensors"


def export(saved: SavedModel, path: Path) -> Path:
    """Write the weights of a model to `path`, and everything else about it to a JSON file beside it.

    Both files are written, or neither.

    Args:
        saved: the model.
        path: ends with ".safetensors".

    Returns: path of the JSON file.

    Raises: UsageError for another suffix, without the package safetensors, or if the state of the algorithm
        is not all tensors; RunError if a file cannot be written.
    """
    if path.suffix != SUFFIX:
        raise UsageError(f"--export takes a name that ends with {SUFFIX}, not {path.name!r}")
    save = _safetensors().save
    content = contents_of(saved)
    weights, shared = _stored_once(content.pop("model_dict"), type(saved.algorithm).__name__)
    beside = path.with_suffix(".json")
    text = json.dumps({**content, "shared": shared}, indent=1) + "\n"
    data = save(weights)
    try:
        with open_atomic(path) as file, open_atomic(beside) as about:
            file.write(data)
            about.write(text.encode())
    except OSError as error:
        raise RunError(f"{path} cannot be written: {error.strerror or error}") from None
    return beside


def read_exported(path: Path) -> SavedModel:
    """The model in `path` and the JSON file beside it.

    Raises: UsageError if one of them is missing or damaged; those of `read_model`.
    """
    from_bytes, beside = _safetensors().load, path.with_suffix(".json")
    try:
        content = parse_json(beside.read_bytes())
        weights: dict[str, Tensor] = from_bytes(path.read_bytes())
        for name, other in content.pop("shared").items():
            weights[name] = weights[other]
    except OSError as error:
        raise UsageError(f"{error.filename} cannot be read: {error.strerror}") from None
    except Exception as error:  # safetensors has an error of its own
        reason = " ".join(f"{type(error).__name__}: {error}".split())[:200]
        raise UsageError(
            f"{path} or {beside.name} is damaged, or --export did not write it: {reason}"
        ) from None
    return build_model(path, {**content, "model_dict": weights})


def _stored_once(state: dict[str, Any], algorithm: str) -> tuple[dict[str, Tensor], dict[str, str]]:
    """The tensors without repetitions, and for each left-out name the one that has its tensor."""
    first: dict[tuple[object, ...], str] = {}
    weights, shared = {}, {}
    for name, tensor in state.items():
        if not isinstance(tensor, Tensor):
            raise UsageError(
                f"{algorithm} keeps {name} in its state, which is no tensor; safetensors has none"
            )
        place = (tensor.data_ptr(), tensor.shape, tensor.stride(), tensor.dtype)
        if tensor.numel() and place in first:
            shared[name] = first[place]
        else:
            first[place] = name
            weights[name] = tensor.detach().cpu().clone(memory_format=torch.contiguous_format)
    return weights, shared


def _safetensors() -> ModuleType:
    try:
        import safetensors.torch
    except ImportError:
        raise UsageError(
            "files in safetensors need the package safetensors, which is not installed; run: pip install "
            "safetensors"
        ) from None
    return safetensors.torch

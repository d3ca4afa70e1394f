"""Pretrained weights of a run, from the user's file or a published one.

Files are read without executing code from them (safetensors, or `torch.load` with `weights_only`).
"""

from __future__ import annotations

import hashlib
import textwrap
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from domainbed.errors import UsageError
from domainbed.hparams import option
from domainbed.networks.base import NO_WEIGHTS, Provenance
from domainbed.networks.default_weights import WeightsSource


def weights_file(source: WeightsSource, hparams: Mapping[str, Any]) -> tuple[Path, Provenance] | None:
    """Path of the weights that a run starts from, and their provenance; None for random weights.

    Args:
        source: the published weights, used if `hparams` has no `weights_file`.
        hparams: optionally `pretrained` and `weights_file`.

    Raises: UsageError if the file is missing and cannot be downloaded.
    """
    if not option(hparams, "pretrained"):
        return None
    given = str(option(hparams, "weights_file"))
    path = Path(given).expanduser() if given else source.find() or source.download()
    if not path.is_file():
        raise UsageError(f"weights file {path} does not exist")
    with path.open("rb") as file:
        digest = hashlib.file_digest(file, "sha256").hexdigest()
    return path, {"name": path.name if given else source.name, "sha256": digest}


def initialise(
    network: nn.Module, source: WeightsSource, hparams: Mapping[str, Any], ignored: tuple[str, ...]
) -> Provenance:
    """Load the weights that a run starts from into `network`, and return their provenance.

    Args:
        network: a network without its last layer.
        source: the published weights, used if `hparams` has no `weights_file`.
        hparams: optionally `pretrained` and `weights_file`.
        ignored: prefixes of names in the file to skip, such as those of the last layer.

    Raises: UsageError if the file is missing, damaged, or has the weights of another network.
    """
    found = weights_file(source, hparams)
    if found is None:
        return NO_WEIGHTS
    path, provenance = found
    state = {name: value for name, value in read(path).items() if not name.startswith(ignored)}
    try:
        network.load_state_dict(state)
    except RuntimeError as error:
        raise mismatch(path, source, error) from None
    return provenance


def mismatch(path: Path, source: WeightsSource, error: Exception) -> UsageError:
    """The error to raise if `path` has the weights of another network. `error` is torch's or timm's."""
    first, _, rest = str(error).partition("\n")
    reason = textwrap.shorten(rest or first, 200)
    return UsageError(f"weights file {path} does not fit {source.name}: {reason}")


def read(path: Path) -> dict[str, Tensor]:
    """The state dict in a .safetensors file, or in a file written by `torch.save`.

    The latter may hold it under the key "state_dict" or "model".

    Raises: UsageError if the file is missing, damaged, or holds anything else.
    """
    if not path.is_file():
        raise UsageError(f"weights file {path} does not exist")
    try:
        if path.suffix == ".safetensors":
            from safetensors.torch import load_file

            return load_file(path)
        state = torch.load(path, map_location="cpu", weights_only=True)
    except ImportError:
        raise UsageError(f"{path} needs the package safetensors: pip install safetensors") from None
    except Exception as error:  # what a damaged file raises depends on its first wrong byte
        reason = textwrap.shorten(f"{type(error).__name__}: {error}", 150)
        raise UsageError(f"weights file {path} is damaged, or not a state dict ({reason})") from None
    for key in ("state_dict", "model"):
        state = state.get(key, state) if isinstance(state, Mapping) else None
    if not isinstance(state, Mapping) or not all(isinstance(value, Tensor) for value in state.values()):
        raise UsageError(f"weights file {path} does not hold a state dict (tensors by name)")
    return dict(state)

"""Pretrained weights: a file that the user names, or a published one.

Files are read without running code from them (`weights_only`, or safetensors).
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
from domainbed.networks.published import Pretrained


def chosen(source: Pretrained, hparams: Mapping[str, Any]) -> tuple[Path, Provenance] | None:
    """The file of weights that a run starts from, and what its records say of it; None for no weights.

    Args:
        source: where the weights are, if no `weights_file` is given.
        hparams: of the run: `pretrained`, `weights_file`.

    Raises: UsageError if the file can't be had.
    """
    if not option(hparams, "pretrained"):
        return None
    named = str(option(hparams, "weights_file"))
    path = Path(named).expanduser() if named else source.find() or source.download()
    if not path.is_file():
        raise UsageError(f"weights file {path} does not exist")
    with path.open("rb") as file:
        digest = hashlib.file_digest(file, "sha256").hexdigest()
    return path, {"name": path.name if named else source.name, "sha256": digest}


def initialise(
    network: nn.Module, source: Pretrained, hparams: Mapping[str, Any], ignored: tuple[str, ...]
) -> Provenance:
    """Load weights into `network`, as the hyper-parameters say; returns what records say of them.

    Args:
        network: without its last layer.
        source: where the weights are, if no `weights_file` is given.
        hparams: of the run.
        ignored: beginnings of names in the file that belong to the last layer.

    Raises: UsageError if the weights can't be had, or are damaged, or are those of another network.
    """
    found = chosen(source, hparams)
    if found is None:
        return NO_WEIGHTS
    path, provenance = found
    state = {name: value for name, value in read(path).items() if not name.startswith(ignored)}
    try:
        network.load_state_dict(state)
    except RuntimeError as error:
        raise does_not_fit(path, source, error) from None
    return provenance


def does_not_fit(path: Path, source: Pretrained, error: Exception) -> UsageError:
    """The error to raise where weights are those of another network; `error` is torch's."""
    first, _, rest = str(error).partition("\n")
    reason = textwrap.shorten(rest or first, 200)
    return UsageError(f"weights file {path} does not fit {source.name}: {reason}")


def read(path: Path) -> dict[str, Tensor]:
    """The state dict in a .safetensors file or a file by `torch.save`, by itself or under "state_dict"."""
    if not path.is_file():
        raise UsageError(f"weights file {path} does not exist")
    try:
        if path.suffix == ".safetensors":
            from safetensors.torch import load_file

            return load_file(path)
        state = torch.load(path, map_location="cpu", weights_only=True)
    except ImportError:
        raise UsageError(f"{path} needs the package safetensors: pip install safetensors") from None
    except Exception as error:  # a damaged file raises whatever the first wrong byte leads to
        reason = textwrap.shorten(f"{type(error).__name__}: {error}", 150)
        raise UsageError(f"weights file {path} is damaged, or no state dict ({reason})") from None
    for key in ("state_dict", "model"):
        state = state.get(key, state) if isinstance(state, Mapping) else None
    if not isinstance(state, Mapping) or not all(isinstance(value, Tensor) for value in state.values()):
        raise UsageError(f"weights file {path} holds no state dict (names and tensors)")
    return dict(state)

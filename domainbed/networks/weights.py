"""Pretrained weights of a run, from the user's file or a published one.

Files are read without executing code from them (safetensors, or `torch.load` with `weights_only`).
"""

from __future__ import annotations

import argparse
import hashlib
import pathlib
import pickle
import re
import textwrap
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from domainbed.errors import UsageError
from domainbed.hparams import option
from domainbed.networks.base import NO_WEIGHTS, Provenance
from domainbed.networks.checkpoint_names import own_names
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

    Raises: UsageError if the file is missing, damaged, or has the weights of another network: nothing but the
        last layer may be missing.
    """
    found = weights_file(source, hparams)
    if found is None:
        return NO_WEIGHTS
    path, provenance = found
    own, changes = own_names(read(path), network.state_dict()).without(ignored)
    try:
        network.load_state_dict(own.state)
    except RuntimeError as error:
        raise mismatch(path, source, error) from None
    return with_changes(provenance, changes, hparams)


def with_changes(provenance: Provenance, changes: str, hparams: Mapping[str, Any]) -> Provenance:
    """`provenance` with what was changed of the user's file, in words, as `adapted`.

    Published files are those of the network itself; that their last layer is dropped goes without saying.
    """
    return {**provenance, "adapted": changes} if changes and option(hparams, "weights_file") else provenance


def mismatch(path: Path, source: WeightsSource, error: Exception) -> UsageError:
    """The error to raise if `path` has the weights of another network. `error` is torch's or timm's."""
    first, _, rest = str(error).partition("\n")
    reason = textwrap.shorten(rest or first, 200)
    return UsageError(f"weights file {path} does not fit {source.name}: {reason}")


class _Inert:
    """Takes the place of an object that says how weights were trained. It keeps and does nothing."""

    def __init__(self, *_: object) -> None:
        pass

    def __setstate__(self, state: object) -> None:
        pass


_FORBIDDEN = re.compile(r"[Uu]nsupported (?:global: )?GLOBAL (\S+)")
"""How torch says that a file needs a class or function that is not allowed."""

_SKIPPED = [
    (_Inert, f"{kind.__module__}.{kind.__qualname__}")
    for kind in (argparse.Namespace, pathlib.PosixPath, pathlib.WindowsPath, pathlib.Path)
]
"""Classes of objects that training scripts save beside the weights: their options."""


def read(path: Path) -> dict[str, Tensor]:
    """The state dict in a .safetensors file, or in a file written by `torch.save`.

    The latter may hold it under the key "state_dict" or "model". Options of a training script beside it
    (`argparse.Namespace`) are skipped, and no code of theirs is executed.

    Raises: UsageError if the file is missing, unreadable, damaged, or holds anything else.
    """
    if not path.is_file():
        raise UsageError(f"weights file {path} does not exist")
    try:
        if path.suffix == ".safetensors":
            from safetensors.torch import load_file

            return load_file(path)
        with torch.serialization.safe_globals(_SKIPPED):  # type: ignore[arg-type] # pairs are allowed
            state = torch.load(path, map_location="cpu", weights_only=True)
    except OSError as error:
        raise UsageError(f"weights file {path} cannot be read: {error.strerror or error}") from None
    except pickle.UnpicklingError as error:
        if found := _FORBIDDEN.search(str(error)):
            raise UsageError(
                f"weights file {path} is not a state dict: it has an object of {found[1]}, which loading "
                'would have to execute; save the weights alone, as torch.save(model.state_dict(), "w.pth")'
            ) from None
        raise _damaged(path, error) from None
    except ImportError:
        raise UsageError(f"{path} needs the package safetensors: pip install safetensors") from None
    except Exception as error:  # what a damaged file raises depends on its first wrong byte
        raise _damaged(path, error) from None
    for key in ("state_dict", "model"):
        state = state.get(key, state) if isinstance(state, Mapping) else None
    if isinstance(state, Mapping):
        state = {name: value for name, value in state.items() if not isinstance(value, _Inert)}
    if not isinstance(state, Mapping) or not all(isinstance(value, Tensor) for value in state.values()):
        raise UsageError(f"weights file {path} does not hold a state dict (tensors by name)")
    return dict(state)


def _damaged(path: Path, error: Exception) -> UsageError:
    reason = textwrap.shorten(f"{type(error).__name__}: {error}", 150)
    return UsageError(f"weights file {path} is damaged, or not a state dict ({reason})")

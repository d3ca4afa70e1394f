"""Checkpoints: all that an unfinished run needs to go on, in files that are whole and execute nothing.

checkpoint.pt            the newest
checkpoint-previous.pt   the one before, in case the newest is damaged
"""

from __future__ import annotations

import logging
import random
import zipfile
from pathlib import Path
from typing import Any

import numpy as np
import torch

from domainbed.files import open_atomic

NAME = "checkpoint.pt"
PREVIOUS = "checkpoint-previous.pt"
_VERSION = 1
_log = logging.getLogger(__name__)

Checkpoint = dict[str, Any]
"""Tensors, numbers, texts, and containers of them."""


def save(directory: Path, content: Checkpoint) -> None:
    """Write a checkpoint into `directory`, and keep the one before it.

    Raises: OSError if there is no room; the checkpoints are what they were then.
    """
    with open_atomic(directory / NAME, previous=directory / PREVIOUS) as file:
        try:
            torch.save({"version": _VERSION, **content}, file)
        except RuntimeError as error:
            # torch's writer stumbles over what it could not write, after the error that says why.
            if isinstance(error.__context__, OSError):
                raise error.__context__ from None
            raise


def load(directory: Path) -> Checkpoint | None:
    """The newest checkpoint in `directory` that can be read, on the CPU; None if there is none.

    Nothing in a file is executed. One that is damaged, or would execute something, is named in a warning.
    """
    for name in (NAME, PREVIOUS):
        path = directory / name
        try:
            return _read(path)
        except FileNotFoundError:
            continue
        except Exception as error:  # whatever a damaged or foreign file makes torch raise
            reason = " ".join(str(error).split())[:100] or type(error).__name__
        _log.warning("checkpoint %s can't be used: %s", path, reason)
    return None


def _read(path: Path) -> Checkpoint:
    with zipfile.ZipFile(path) as archive:
        damaged = archive.testzip()  # torch itself does not look at the checksums
    if damaged is not None:
        raise ValueError(f"{damaged} in it is damaged")
    content: Checkpoint = torch.load(path, map_location="cpu", weights_only=True)
    if content["version"] != _VERSION:
        raise ValueError(f"its version is {content['version']!r}, not {_VERSION}")
    return content


def remove(directory: Path) -> None:
    """Remove the checkpoints in `directory`: the run is done."""
    for name in (NAME, PREVIOUS):
        (directory / name).unlink(missing_ok=True)


def generator_states() -> dict[str, Any]:
    """States of the global generators of Python, NumPy, torch, and torch's on each GPU."""
    kind, keys, *rest = np.random.get_state()
    return {
        "python": random.getstate(),
        "numpy": (kind, torch.from_numpy(np.asarray(keys).astype(np.int64)), *rest),
        "torch": torch.get_rng_state(),
        "cuda": torch.cuda.get_rng_state_all() if torch.cuda.is_initialized() else [],
    }


def set_generator_states(states: dict[str, Any]) -> None:
    """Take back what `generator_states` gave."""
    random.setstate(states["python"])
    kind, keys, *rest = states["numpy"]
    np.random.set_state((kind, keys.numpy().astype(np.uint32), *rest))
    torch.set_rng_state(states["torch"])
    if states["cuda"] and len(states["cuda"]) == torch.cuda.device_count():
        torch.cuda.set_rng_state_all(states["cuda"])

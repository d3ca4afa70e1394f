"""Checkpoints: the state of an unfinished run. Writing is atomic, and loading never executes code.

checkpoint.pt            the newest checkpoint
checkpoint-previous.pt   the one before, used if the newest is damaged
"""

from __future__ import annotations

import contextlib
import logging
import random
import zipfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import torch

from domainbed.errors import UsageError
from domainbed.files import open_atomic

NAME = "checkpoint.pt"
PREVIOUS = "checkpoint-previous.pt"
_VERSION = 1
_log = logging.getLogger(__name__)

Checkpoint = dict[str, Any]
"""Tensors, numbers, strings, and containers of them."""


def save(directory: Path, content: Checkpoint) -> None:
    """Write a checkpoint into `directory` and keep the previous one.

    Raises: OSError if it cannot be written, for instance to a full disk. Existing checkpoints are kept.
    """
    with open_atomic(directory / NAME, previous=directory / PREVIOUS) as file:
        try:
            torch.save({"version": _VERSION, **content}, file)
        except RuntimeError as error:
            # After a failed write, torch's writer raises a RuntimeError that hides the cause.
            if isinstance(error.__context__, OSError):
                raise error.__context__ from None
            raise


def load(directory: Path) -> Checkpoint | None:
    """The newest readable checkpoint in `directory`, on the CPU, or None if there is none.

    A file that is damaged, or would execute code, is skipped with a warning.

    Raises: UsageError for a checkpoint of another layout.
    """
    for name in (NAME, PREVIOUS):
        path = directory / name
        try:
            content = _read(path)
        except FileNotFoundError:
            continue
        except Exception as error:  # torch raises almost anything for a damaged or foreign file
            _log.warning("cannot use checkpoint %s: %s", path, _one_line(error))
            continue
        if content["version"] != _VERSION:
            raise _incompatible(directory, f"its layout is {content['version']!r}, not {_VERSION}")
        return content
    return None


@contextlib.contextmanager
def compatible(directory: Path) -> Iterator[None]:
    """Turn errors raised while a checkpoint of `directory` is restored into one UsageError.

    Such an error means that a version with other state, for instance of the algorithm, wrote the checkpoint.
    """
    try:
        yield
    except torch.OutOfMemoryError:
        raise
    except (AttributeError, KeyError, IndexError, TypeError, ValueError, RuntimeError) as error:
        raise _incompatible(directory, _one_line(error)) from error


def remove(directory: Path) -> None:
    """Remove all checkpoints in `directory`."""
    for name in (NAME, PREVIOUS):
        (directory / name).unlink(missing_ok=True)


def generator_states() -> dict[str, Any]:
    """States of the global random number generators of Python, NumPy, torch, and torch on each device."""
    kind, keys, *rest = np.random.get_state()
    return {
        "python": random.getstate(),
        "numpy": (kind, torch.from_numpy(np.asarray(keys).astype(np.int64)), *rest),
        "torch": torch.get_rng_state(),
        "accelerator": [] if (module := _accelerator_in_use()) is None else module.get_rng_state_all(),
    }


def set_generator_states(states: dict[str, Any]) -> None:
    """Restore the states returned by `generator_states`."""
    random.setstate(states["python"])
    kind, keys, *rest = states["numpy"]
    np.random.set_state((kind, keys.numpy().astype(np.uint32), *rest))
    torch.set_rng_state(states["torch"])
    of_devices = states["accelerator"] if "accelerator" in states else states["cuda"]  # before 0.2
    module = _accelerator_in_use()
    if module is not None and len(of_devices) == module.device_count():
        module.set_rng_state_all(of_devices)


def _accelerator_in_use() -> Any:  # noqa: ANN401 - a module of torch, whose functions differ by device
    """`torch.cuda`, `torch.xpu` or the like, if its devices have generators and this process uses them."""
    if not torch.accelerator.is_available():  # without one, torch 2.6 has no current_accelerator
        return None
    module = torch.get_device_module(torch.accelerator.current_accelerator())
    can = all(hasattr(module, name) for name in ("is_initialized", "get_rng_state_all", "set_rng_state_all"))
    return module if can and module.is_initialized() else None


def _read(path: Path) -> Checkpoint:
    with zipfile.ZipFile(path) as archive:
        damaged = archive.testzip()  # torch does not verify the checksums
    if damaged is not None:
        raise ValueError(f"its entry {damaged} is damaged")
    content: Checkpoint = torch.load(path, map_location="cpu", weights_only=True)
    content["version"]  # raises KeyError for a file that is no checkpoint
    return content


def _incompatible(directory: Path, reason: str) -> UsageError:
    return UsageError(
        f"cannot resume from the checkpoint in {directory}: another version of this package wrote it "
        f"({reason}); use that version, or --restart to start over"
    )


def _one_line(error: Exception) -> str:
    return " ".join(str(error).split())[:100] or type(error).__name__

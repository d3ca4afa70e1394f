"""Functions of large gradients as one pass over memory, compiled where that pays and is possible."""

from __future__ import annotations

import functools
import importlib.util
import logging
import os
import shutil
import sysconfig
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch

WORTHWHILE = 2**23
"""Number P of components from which rules are compiled: some seconds at the first update of a run."""

_MOST_VARIANTS = 64

_log = logging.getLogger(__name__)


def missing_for_compilation(device_type: str) -> str | None:
    """What torch.compile lacks for "cpu" or "cuda", and how to install it; None if nothing is missing.

    torch itself finds out only when a compilation fails.
    """
    if device_type == "cuda" and importlib.util.find_spec("triton") is None:
        return "needs the package triton; install it: pip install triton"
    variable, usual = ("CC", ["gcc", "clang"]) if device_type == "cuda" else ("CXX", ["g++"])
    compilers = [os.environ[variable]] if variable in os.environ else usual
    if not any(map(shutil.which, compilers)):
        return (
            f"needs the compiler {' or '.join(compilers)}; install it (apt-get install g++), or name another "
            f"one as {variable} in the environment"
        )
    if not Path(sysconfig.get_path("include"), "Python.h").exists():
        return "needs Python's headers; install them (apt-get install python3-dev)"
    return None


def compiles(components: int, device: torch.device) -> bool:
    """Whether rules over gradients of so many components are compiled: if many, on a CPU with a compiler."""
    return components >= WORTHWHILE and device.type == "cpu" and missing_for_compilation("cpu") is None


@functools.cache
def compiled(function: Callable[..., Any]) -> Callable[..., Any]:
    """`function` of tensors of any lengths, compiled when it is first called.

    If the compiler fails, a warning is logged once and `function` itself runs. Element-wise results are
    equal to the bit, since nothing is contracted or reordered; sums differ by rounding.
    """
    import torch._dynamo.config as config

    # Each rule and each layout of blocks is a variant; past torch's limit of 8 none is compiled.
    # Before torch 2.7 it has another name.
    limit = "recompile_limit" if hasattr(config, "recompile_limit") else "cache_size_limit"
    setattr(config, limit, max(getattr(config, limit), _MOST_VARIANTS))
    fast = torch.compile(function, dynamic=True, options={"compile_threads": 1})
    failed = False

    def call(*args: Any) -> Any:  # noqa: ANN401 - whatever the function takes and returns
        nonlocal failed
        if not failed:
            from torch._dynamo.exc import TorchDynamoException

            try:
                return fast(*args)
            except TorchDynamoException as error:
                failed = True
                reason = str(error).strip().splitlines()[0]
                _log.warning("compilation failed, so rules run uncompiled and somewhat slower: %s", reason)
        return function(*args)

    return call

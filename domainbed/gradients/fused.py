"""Functions of large gradients as one pass over memory, compiled where that pays and can be done."""

from __future__ import annotations

import functools
import logging
from collections.abc import Callable
from typing import Any

import torch

from domainbed.gradients.compiler import lacks_for_compilation

WORTHWHILE = 2**24
"""Components of all gradients; a tenth of a second an update then, for some seconds at the first."""

_log = logging.getLogger(__name__)


def can_fuse(device: torch.device) -> bool:
    """Whether functions are compiled for `device`: with a compiler on the CPU; not tried elsewhere."""
    return device.type == "cpu" and lacks_for_compilation("cpu") is None


@functools.cache
def fused(function: Callable[..., Any]) -> Callable[..., Any]:
    """`function` of one-dimensional tensors of any lengths, compiled when it is first called.

    If the compiler fails there is a warning, and the function itself runs. Its element-wise results are the
    same to the bit (nothing is contracted or reordered), sums up to rounding.
    """
    compiled = torch.compile(function, dynamic=True, options={"compile_threads": 1})
    failed = False

    def call(*args: Any) -> Any:  # noqa: ANN401 - whatever the function takes and gives
        nonlocal failed
        if not failed:
            from torch._dynamo.exc import TorchDynamoException

            try:
                return compiled(*args)
            except TorchDynamoException as error:
                failed = True
                reason = str(error).strip().splitlines()[0]
                _log.warning("going on without compiled functions, somewhat slower: %s", reason)
        return function(*args)

    return call

"""Errors of an update or evaluation that ran out of memory, with what would fit."""

from __future__ import annotations

import contextlib
import re
from collections.abc import Callable, Iterator

from domainbed.console import format_bytes
from domainbed.errors import RunError

_MESSAGES = (
    "DefaultCPUAllocator",
    "std::bad_alloc",
    "could not create a memory",  # of oneDNN
    "ALLOC_FAILED",  # of cuBLAS and cuDNN
    "CUDA error: out of memory",
)
"""Messages of a RuntimeError that is raised where a library gets no memory."""
_TRIED = re.compile(r"tried to allocate ([\d.]+) (\w+)", re.IGNORECASE)


def is_out_of_memory(error: BaseException) -> bool:
    """Whether `error` says that there is too little memory, of the machine or of an accelerator."""
    import torch

    if isinstance(error, MemoryError | torch.OutOfMemoryError):
        return True
    return isinstance(error, RuntimeError) and any(each in str(error) for each in _MESSAGES)


def out_of_memory(error: BaseException, doing: str, remedy: str) -> RunError:
    """An error of one line.

    Args:
        error: what torch raised.
        doing: what ran out of memory, such as "an update"; empty if that is not known.
        remedy: what to change, as a clause.
    """
    found = _TRIED.search(str(error))
    reason = ""
    if found:
        amount = format_bytes(float(found[1])) if found[2] == "bytes" else f"{found[1]} {found[2]}"
        reason = f" (tried to allocate {amount})"
    return RunError(f"out of memory{doing and f' in {doing}'}{reason}; {remedy}")


@contextlib.contextmanager
def explained(doing: str, remedy: Callable[[], str]) -> Iterator[None]:
    """Turn an error for lack of memory into one of one line. Arguments are those of `out_of_memory`."""
    try:
        yield
    except (MemoryError, RuntimeError) as error:
        if not is_out_of_memory(error):
            raise
        raise out_of_memory(error, doing, remedy()) from error

"""Normal noise of the size of a network, drawn on all cores, and the same on any number of them."""

from __future__ import annotations

from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor

import torch
from torch import Tensor

_BLOCK = 2**18
_AT_ONCE = 32  # blocks; few breaks, since each begins with threads of torch that still wait busily


def normal_noise(like: Tensor, seed: int) -> Iterator[tuple[int, Tensor]]:
    """Start and values (m,) of consecutive parts of as many Normal(0, 1) draws as `like` (P,) has components.

    Each block of components has a generator of its own, since torch draws from one with one thread only.
    On a GPU, which draws in parallel anyway, there is one part.

    Args:
        like: has the type and the device that the draws are to have.
        seed: 63 bits; neighbours of it give unrelated draws.
    """
    if like.device.type != "cpu":
        yield 0, _drawn(torch.empty_like(like), seed)
        return
    size, step = len(like), _BLOCK * _AT_ONCE
    buffer = like.new_empty(min(size, step))
    with ThreadPoolExecutor(torch.get_num_threads()) as threads:
        for start in range(0, size, step):
            part = buffer[: size - start]
            blocks = part.split(_BLOCK)
            first = seed + start // _BLOCK
            list(threads.map(_drawn, blocks, range(first, first + len(blocks))))
            yield start, part


def _drawn(values: Tensor, seed: int) -> Tensor:
    return values.normal_(generator=torch.Generator(values.device).manual_seed(seed))

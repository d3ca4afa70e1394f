"""Random numbers that belong to the components of the flat gradient, whatever blocks or threads draw them.

Consecutive blocks of components have generators of their own, because torch draws from one generator with
one thread only. On a GPU, which draws in parallel anyway, one generator draws all.
"""

from __future__ import annotations

from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor

import torch
from torch import Tensor

_BLOCK = 2**18
_BLOCKS_AT_ONCE = 32  # few breaks, since threads of torch that wait busily slow each one down


def normal_parts(like: Tensor, seed: int) -> Iterator[tuple[int, Tensor]]:
    """Yield (start, draws (m,)) of consecutive parts of P draws from Normal(0, 1).

    Args:
        like: (P,); the draws have its dtype and device.
        seed: 63 bits; neighbouring seeds give unrelated draws.
    """
    if like.device.type != "cpu":
        yield 0, _normal(torch.empty_like(like), seed)
        return
    size, step = len(like), _BLOCK * _BLOCKS_AT_ONCE
    memory = like.new_empty(min(size, step))
    with ThreadPoolExecutor(torch.get_num_threads()) as threads:
        for start in range(0, size, step):
            part = memory[: size - start]
            blocks = part.split(_BLOCK)
            first = seed + start // _BLOCK
            list(threads.map(_normal, blocks, range(first, first + len(blocks))))
            yield start, part


def uniform(like: Tensor, seed: int) -> Tensor:
    """P draws from [0, 1), with the dtype and device of `like` (P,)."""
    generator = torch.Generator(like.device).manual_seed(seed)
    return torch.rand(like.shape, generator=generator, dtype=like.dtype, device=like.device)


def _normal(values: Tensor, seed: int) -> Tensor:
    return values.normal_(generator=torch.Generator(values.device).manual_seed(seed))

"""Seeds derived from names and counters, so that no random draw depends on what was drawn before it."""

from __future__ import annotations

import hashlib
import random

import numpy as np


def seed_hash(*args: object) -> int:
    """31-bit seed of plain Python arguments: MD5 of the text of their tuple, modulo 2^31 (upstream's)."""
    return int(hashlib.md5(str(args).encode("utf-8")).hexdigest(), 16) % 2**31


def counter_seed(*counters: int) -> int:
    """63-bit seed of some integers, e.g. (seed, environment, step); different for different integers.

    BLAKE2b of their decimal text: seeds of neighbouring counters are unrelated.
    """
    text = ",".join(str(int(counter)) for counter in counters)
    return int.from_bytes(hashlib.blake2b(text.encode(), digest_size=8).digest(), "little") >> 1


def generator(*counters: int) -> np.random.Generator:
    """NumPy generator that belongs to `counters` alone."""
    return np.random.Generator(np.random.Philox(counter_seed(*counters)))


def seed_all(seed: int) -> None:
    """Seed the global generators of Python, NumPy and torch (CUDA's too), in this order."""
    import torch

    random.seed(seed)
    np.random.seed(seed % 2**32)
    torch.manual_seed(seed)

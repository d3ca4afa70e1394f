"""Seeds derived from names and counters, so that no random draw depends on earlier draws."""

from __future__ import annotations

import enum
import hashlib
import random

import numpy as np


@enum.unique
class Purpose(enum.IntEnum):
    """Uses of random numbers in a run; one of the counters of each seed, so that no two uses share one.

    Every result depends on these numbers: they never change. A plugin's own purposes start at 1000.
    """

    MINIBATCH = 0
    """Which samples are in a minibatch."""
    AUGMENTATION = 1
    """Augmentation of a minibatch's samples."""
    EVALUATION = 2
    """Augmentation of evaluated samples."""
    PREDICTION = 3
    """Draws of an algorithm in `predict`."""
    UPDATE = 4
    """Draws of an algorithm in `update`, such as dropout masks."""
    GROUPING = 5
    """Assignment of samples to environments in control experiments."""
    PROBES = 6
    """Samples of the gradient similarity study."""


def seed_hash(*args: object) -> int:
    """31-bit seed from plain Python arguments: MD5 of their tuple as text, modulo 2^31 (as in upstream)."""
    return int(hashlib.md5(str(args).encode("utf-8")).hexdigest(), 16) % 2**31


def counter_seed(*counters: int) -> int:
    """63-bit seed from integers such as (seed, environment, step): BLAKE2b of their decimal text.

    Seeds of neighbouring counters are unrelated.
    """
    text = ",".join(str(int(counter)) for counter in counters)
    return int.from_bytes(hashlib.blake2b(text.encode(), digest_size=8).digest(), "little") >> 1


def generator(*counters: int) -> np.random.Generator:
    """NumPy generator seeded by `counter_seed(*counters)`."""
    return np.random.Generator(np.random.Philox(counter_seed(*counters)))


def global_seed() -> int:
    """The seed of torch's global generator, in 63 bits: the run's, while training builds an algorithm."""
    import torch

    return torch.initial_seed() % 2**63


def seed_all(seed: int) -> None:
    """Seed the global generators of Python, NumPy and torch (CUDA's too), in this order."""
    import torch

    random.seed(seed)
    np.random.seed(seed % 2**32)
    torch.manual_seed(seed)

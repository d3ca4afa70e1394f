"""The initial weights of a run: the seed that they are drawn with, and a checksum.

Runs with other seeds have the same initial weights if `initial_seed` is given. Averages of their trained
weights then make sense: see Ramé et al. 2022 (DiWA, arXiv 2205.09739), section 2.3.
"""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from typing import Any

import torch
from torch import nn

from domainbed.hparams import OPTIONS, Hparam, const, option

OPTIONS["initial_seed"] = Hparam(
    -1,
    const(-1),
    "seed of the initial weights, so that trials share them and can be averaged; -1: the run's own seed",
    at_least=-1,
)

INITIAL_WEIGHTS = "initial_weights"
"""Key of the checksum in records."""


def initial_seed(hparams: Mapping[str, Any], seed: int) -> int:
    """The seed of the initial weights of a run.

    Args:
        hparams: its hyper-parameters.
        seed: its setting `seed`.
    """
    own = int(option(hparams, "initial_seed"))
    return seed if own < 0 else own


def weights_checksum(module: nn.Module) -> str:
    """A checksum of all parameters and saved buffers, their names and shapes: 32 hexadecimal digits."""
    digest = hashlib.blake2b(digest_size=16)
    for name, value in sorted(module.state_dict().items()):
        if isinstance(value, torch.Tensor):
            digest.update(f"{name} {tuple(value.shape)} {value.dtype}\n".encode())
            digest.update(value.detach().cpu().contiguous().reshape(-1).view(torch.uint8).numpy().data)
    return digest.hexdigest()

"""Nash-MTL as an algorithm: the one Gram method whose length has to be chosen."""

from __future__ import annotations

from typing import Any

import numpy as np
import torch
from torch import Tensor

from domainbed.errors import check_choice
from domainbed.hparams import Hparam, const
from domainbed_gs import surgery
from domainbed_gs.algorithms.gram import GramSurgery


class NashMTL(GramSurgery):
    """Nash-MTL (Navon et al. 2022, arXiv 2202.01017): the bargain that every environment gains from.

    Solves G a = 1 / a exactly, starting from the last update's a. The solution's length is sqrt(K) however
    long the gradients are, so `nash_length` says what to do about it: "mean" gives it the length of the
    mean gradient, the scale that all methods here have by default; "reference" is what public codes do,
    sqrt(K |G|) with the Frobenius norm, but at most `nash_max_norm`; "solution" leaves it.
    """

    HPARAMS = {
        "nash_length": Hparam("mean", const("mean"), "of the direction: mean, reference, solution"),
        "nash_max_norm": Hparam(1.0, const(1.0), "largest length with nash_length reference", above=0),
    }
    STATE = ("alpha",)

    def __init__(
        self, input_shape: tuple[int, ...], num_classes: int, num_domains: int, hparams: dict[str, Any]
    ) -> None:
        check_choice(
            "hyper-parameter nash_length is", hparams["nash_length"], ("mean", "reference", "solution")
        )
        super().__init__(input_shape, num_classes, num_domains, hparams)
        self.alpha: Tensor | None = None

    def weights(self, gram: np.ndarray) -> np.ndarray:
        alpha = surgery.nash_mtl_weights(gram, None if self.alpha is None else self.alpha.numpy())
        length = surgery.norm_of(gram, alpha)
        if not 0 < length < np.inf:
            raise surgery.NoDirection("Nash-MTL's direction has no length")
        self.alpha = torch.from_numpy(alpha)
        if self.hparams["nash_length"] == "solution":
            return alpha
        if self.hparams["nash_length"] == "mean":
            wanted = surgery.norm_of(gram, np.full(len(gram), 1 / len(gram)))
        else:
            wanted = min(length * float(np.linalg.norm(gram)) ** 0.5, self.hparams["nash_max_norm"])
        return alpha * (wanted / length)

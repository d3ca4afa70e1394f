"""The gradient of an update is the slope of the reported objective, by finite differences in float64."""

import numpy as np
import pytest
import torch

from domainbed.algorithms import get_algorithm_class
from domainbed.hparams_registry import default_hparams

SHAPE = (3, 16, 16)
STEP = 1e-6


def penalised(weight, loss="loss", penalty="penalty"):
    return lambda values, hparams: values[loss] + hparams[weight] * values[penalty]


def reported(name):
    return lambda values, hparams: values[name]


OBJECTIVES = {
    **dict.fromkeys(["ERM", "IRM", "VREx", "IB_ERM", "IB_IRM", "Fishr", "MTL", "ARM"], reported("loss")),
    **dict.fromkeys(["CORAL", "MMD", "CausIRL_CORAL", "CausIRL_MMD"], penalised("mmd_gamma")),
    **dict.fromkeys(["CAD", "CondCAD", "RDM"], reported("total_loss")),
    "SD": penalised("sd_reg"),
    "IGA": penalised("penalty"),
}
"""For methods with a single objective: its value, from what `update` returns."""

FROM_THE_START = {
    "irm_penalty_anneal_iters": 0,
    "vrex_penalty_anneal_iters": 0,
    "ib_penalty_anneal_iters": 0,
    "penalty_anneal_iters": 0,
    "rdm_penalty_anneal_iters": 0,
}


def updated(name, shift=None):
    """An algorithm after one update from weights moved by `shift` (P,), and what the update returned."""
    hparams = default_hparams(name, "Debug28") | FROM_THE_START | {"featurizer": "small_cnn"}
    torch.manual_seed(0)
    algorithm = get_algorithm_class(name)(SHAPE, 3, 3, hparams)
    minibatches = [
        (torch.randn(6, *SHAPE) * (1 + e), torch.tensor([0, 0, 1, 1, 2, e % 3]).roll(e)) for e in range(3)
    ]
    if shift is not None:
        with torch.no_grad():
            start = 0
            for parameter in algorithm.parameters():
                parameter += shift[start : start + parameter.numel()].view_as(parameter)
                start += parameter.numel()
    torch.manual_seed(1)
    np.random.seed(1)
    values = {key: float(value) for key, value in algorithm.update(minibatches).items()}
    return algorithm, OBJECTIVES[name](values, hparams)


@pytest.mark.parametrize("name", OBJECTIVES)
def test_the_gradient_equals_the_slope_of_the_objective(name, float64):
    algorithm, _ = updated(name)
    gradient = torch.cat(
        [torch.zeros(p.numel()) if p.grad is None else p.grad.flatten() for p in algorithm.parameters()]
    )
    trained = torch.cat([torch.full((p.numel(),), p.grad is not None) for p in algorithm.parameters()])
    random = torch.randn(len(gradient), generator=torch.Generator().manual_seed(2)) * trained
    for direction in (gradient / gradient.norm(), random / random.norm()):
        ahead, behind = (updated(name, sign * STEP * direction)[1] for sign in (1, -1))
        slope = (ahead - behind) / (2 * STEP)
        assert slope == pytest.approx(
            (gradient @ direction).item(), rel=1e-4, abs=1e-6 * gradient.norm().item()
        )

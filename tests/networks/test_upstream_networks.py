"""Networks against upstream's numbers: initialisation, forward and backward passes, batch norms."""

import json
import random
from pathlib import Path

import numpy as np
import pytest
import torch

from domainbed.algorithms import get_algorithm_class
from domainbed.hparams_registry import default_hparams

CASES = json.loads((Path(__file__).parents[1] / "data" / "networks_erm.json").read_text())


@pytest.fixture(autouse=True)
def _double():
    torch.set_default_dtype(torch.float64)
    yield
    torch.set_default_dtype(torch.float32)


def seed_all(seed):
    torch.manual_seed(seed)
    np.random.seed(seed)
    random.seed(seed)


def sum_and_norm(tensors):
    return {name: [t.sum().item(), t.double().norm().item()] for name, t in tensors if "network." not in name}


def close(found, expected):
    assert list(found) == list(expected)
    for name in expected:
        assert found[name] == pytest.approx(expected[name], rel=1e-6, abs=1e-7), name


@pytest.mark.parametrize(
    "case", CASES, ids=lambda c: f"{c['input_shape'][1]}{'-nonlinear' * bool(c['overrides'])}"
)
def test_erm(case):
    torch.manual_seed(123)
    data = [
        [(torch.randn(n, *case["input_shape"]), torch.randint(0, 3, (n,))) for n in case["batch_sizes"]]
        for _ in case["returned"]
    ]
    hparams = default_hparams("ERM", "Debug28") | {"weight_decay": 1e-3} | case["overrides"]
    seed_all(0)
    algorithm = get_algorithm_class("ERM")(tuple(case["input_shape"]), case["num_classes"], 3, hparams)
    if "initial_parameters" in case:
        expected = {name: value[1:] for name, value in case["initial_parameters"].items()}
        close(sum_and_norm(algorithm.named_parameters()), expected)
    seed_all(1)
    for minibatches, returned in zip(data, case["returned"], strict=True):
        assert algorithm.update(minibatches) == pytest.approx(returned, rel=1e-6)
    close(sum_and_norm(algorithm.named_parameters()), case["final_parameters"])
    if "final_buffers" in case:
        close(sum_and_norm(algorithm.named_buffers()), case["final_buffers"])
    torch.manual_seed(2)
    algorithm.eval()
    with torch.no_grad():
        logits = algorithm.predict(data[0][0][0])
    np.testing.assert_allclose(logits.numpy(), case["predict"], rtol=1e-6, atol=1e-7)

"""Six updates of each algorithm against upstream's numbers, in float64 (how they were made: spec vectors)."""

import json
import random
from pathlib import Path

import numpy as np
import pytest
import torch

from domainbed.algorithms import ALGORITHMS, get_algorithm_class
from domainbed.hparams_registry import default_hparams

CASES = [
    case
    for case in json.loads((Path(__file__).parents[1] / "data" / "updates.json").read_text(encoding="utf-8"))
    if case["algorithm"] in ALGORITHMS
]


def name_of(case):
    shape, sizes = case["input_shape"][1], case["batch_sizes"]
    return "-".join(map(str, (case["algorithm"], shape, *sizes, *case["overrides"])))


def seed(value):
    torch.manual_seed(value)
    np.random.seed(value)
    random.seed(value)


def data_of(case):
    torch.manual_seed(123)
    return [
        [
            (
                torch.randn(n, *case["input_shape"], dtype=torch.float64),
                torch.randint(0, case["num_classes"], (n,)),
            )
            for n in case["batch_sizes"]
        ]
        for _ in case["returned"]
    ]


@pytest.mark.parametrize("case", CASES, ids=name_of)
def test_updates_equal_upstreams(case, float64):
    updates = data_of(case)
    hparams = default_hparams(case["algorithm"], "Debug28") | {"weight_decay": 1e-3} | case["overrides"]
    seed(0)
    shape = tuple(case["input_shape"])
    algorithm = get_algorithm_class(case["algorithm"])(shape, case["num_classes"], len(updates[0]), hparams)
    for name, (size, total, norm) in case.get("initial_parameters", {}).items():
        parameter = algorithm.get_parameter(name)
        assert list(parameter.shape) == size
        check(parameter, total, norm, 1e-9)

    seed(1)
    algorithm.train()
    for minibatches, expected in zip(updates, case["returned"], strict=True):
        returned = {name: float(value) for name, value in algorithm.update(minibatches).items()}
        assert returned == pytest.approx(expected, rel=1e-6, abs=1e-9)

    parameters = dict(algorithm.named_parameters())
    for name, (total, norm) in case["final_parameters"].items():
        check(parameters[name], total, norm, 1e-6)
    buffers = dict(algorithm.named_buffers())
    for name, (total, norm) in case.get("final_buffers", {}).items():
        check(buffers[name].double(), total, norm, 1e-6)
    torch.manual_seed(2)
    algorithm.eval()
    with torch.no_grad():
        logits = algorithm.predict(updates[0][0][0])
    torch.testing.assert_close(logits, torch.tensor(case["predict"]), rtol=1e-6, atol=1e-7)


def check(tensor, total, norm, tolerance):
    assert tensor.sum().item() == pytest.approx(total, rel=tolerance, abs=tolerance)
    assert tensor.norm().item() == pytest.approx(norm, rel=tolerance, abs=tolerance)


def test_there_are_cases_of_all_that_table_1_compares():
    assert {"ERM", "IRM", "MLDG", "Mixup", "GroupDRO"} <= {case["algorithm"] for case in CASES}

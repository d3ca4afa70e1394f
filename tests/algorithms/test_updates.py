"""Six updates of each algorithm against reference numbers from upstream, in float64.

A case in tests/data/updates.json has shapes and hyper-parameters, what upstream's updates returned, sum and
norm of each parameter, and predictions. Weights and data are drawn from the seeds below.

`python tests/algorithms/test_updates.py` prints the largest difference for each algorithm.
"""

import json
import random
from pathlib import Path

import numpy as np
import pytest
import torch

from domainbed.algorithms import UPSTREAM, get_algorithm_class

DATA = Path(__file__).parents[1] / "data"
CASES = json.loads((DATA / "updates.json").read_text(encoding="utf-8"))
DEFAULTS = {  # those of Debug28 are the same
    name: datasets["RotatedMNIST"]["default"]
    for name, datasets in json.loads((DATA / "hparams.json").read_text(encoding="utf-8")).items()
}
UNEQUAL = [8, 6, 5]
_FLOOR = 1e-3  # differences of smaller numbers are relative to this
UPSTREAMS_WAY = {"Transfer": {"upstream_gda": True}, "SANDMask": {"upstream_tau": True}}
"""Switches that restore upstream's behaviour."""


def name_of(case):
    shape, sizes = case["input_shape"][1], case["batch_sizes"]
    return "-".join(map(str, (case["algorithm"], shape, *sizes, *case["overrides"])))


def marked(case):
    """The case, marked slow unless it is its algorithm's first. Cases with unequal minibatches come first."""
    alike = [each for each in CASES if each["algorithm"] == case["algorithm"]]
    slow = case is not min(alike, key=lambda each: each["batch_sizes"] != UNEQUAL)
    return pytest.param(case, marks=pytest.mark.slow if slow else (), id=name_of(case))


@pytest.mark.parametrize("case", [marked(case) for case in CASES])
def test_updates_equal_upstreams(case, float64):
    found = differences(case)
    assert found.pop("initial parameters") < 1e-9
    assert found
    assert {name: value for name, value in found.items() if not value < 1e-6} == {}


def test_every_algorithm_of_upstream_has_cases():
    assert {case["algorithm"] for case in CASES} == set(UPSTREAM)
    assert len(CASES) == 115


def differences(case):
    """Largest relative difference for each kind of number. The default dtype must be float64."""
    updates = _data_of(case)
    name = case["algorithm"]
    hparams = DEFAULTS[name] | {"weight_decay": 1e-3} | case["overrides"] | UPSTREAMS_WAY.get(name, {})
    _seed(0)
    cls = get_algorithm_class(name)
    algorithm = cls(tuple(case["input_shape"]), case["num_classes"], len(updates[0]), hparams)
    if name == "ERMPlusPlus":
        algorithm.sma_start_iter = 4
    found = {"initial parameters": 0.0}
    for key, (size, *expected) in case.get("initial_parameters", {}).items():
        parameter = algorithm.get_parameter(key)
        assert list(parameter.shape) == size
        _widen(found, "initial parameters", _sum_and_norm(parameter), expected)

    _seed(1)
    algorithm.train()
    for minibatches, expected in zip(updates, case["returned"], strict=True):
        returned = {key: float(value) for key, value in algorithm.update(minibatches).items()}
        assert returned.keys() == expected.keys()
        for key, value in expected.items():
            _widen(found, key, [returned[key]], [value])

    parameters, buffers = dict(algorithm.named_parameters()), dict(algorithm.named_buffers())
    for key, expected in case["final_parameters"].items():
        _widen(found, "parameters", _sum_and_norm(parameters[key]), expected)
    for key, expected in case.get("final_buffers", {}).items():
        _widen(found, "buffers", _sum_and_norm(buffers[key]), expected)
    torch.manual_seed(2)
    algorithm.eval()
    with torch.no_grad():
        logits = algorithm.predict(updates[0][0][0])
    _widen(found, "predictions", logits.flatten().tolist(), np.ravel(case["predict"]))
    return found


def _widen(found, kind, got, expected):
    expected = np.asarray(expected)
    relative = np.abs(np.asarray(got) - expected) / np.maximum(_FLOOR, np.abs(expected))
    # Not max(), which may drop a NaN.
    found[kind] = float(np.maximum(found.get(kind, 0.0), relative.max()))


def _sum_and_norm(tensor):
    return [tensor.double().sum().item(), tensor.double().norm().item()]


def _seed(value):
    torch.manual_seed(value)
    np.random.seed(value)
    random.seed(value)


def _data_of(case):
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


if __name__ == "__main__":
    torch.set_default_dtype(torch.float64)
    largest = dict.fromkeys(UPSTREAM, 0.0)
    for each in CASES:
        found = differences(each)
        largest[each["algorithm"]] = max(largest[each["algorithm"]], *found.values())
    for algorithm_name, value in largest.items():
        print(f"{algorithm_name:15s}{value:.1e}")

"""Compiled rules do what the rules do, and without a compiler the rules themselves run."""

import logging

import pytest
import torch

from domainbed.algorithms import get_algorithm_class
from domainbed.gradients.fused import can_fuse, fused
from domainbed.hparams_registry import default_hparams

INPUT_SHAPE, K = (3, 8, 8), 3
NAMES = ["AgrSum", "AgrRand", "GradDrop", "SANDMask", "PCGrad"]


@pytest.fixture
def few_are_many(monkeypatch):
    """Networks as small as a test's count as worthwhile, and so does each linear layer's weight."""
    monkeypatch.setattr("domainbed.algorithms.environment_gradients.WORTHWHILE", 1)
    monkeypatch.setattr("domainbed.gradients.blockwise._FUSED_FROM", 1000)


def trained(name, **hparams):
    """Values of the last of three updates, and the parameters after them."""
    torch.manual_seed(3)
    hparams = default_hparams(name, "Debug28") | {"featurizer": "mlp", "mlp_width": 64} | hparams
    algorithm = get_algorithm_class(name)(INPUT_SHAPE, 5, K, hparams)
    for _ in range(3):
        values = algorithm.update([(torch.randn(6, *INPUT_SHAPE), torch.randint(5, (6,))) for _ in range(K)])
    return {key: float(value) for key, value in values.items()}, torch.cat(
        [parameter.detach().flatten() for parameter in algorithm.parameters()]
    )


@pytest.mark.parametrize("name", NAMES)
def test_training_is_the_same_with_compiled_rules_and_without(few_are_many, name):
    assert can_fuse(torch.device("cpu"))
    asked = sum(fused.cache_info()[:2])
    values, parameters = trained(name)
    assert sum(fused.cache_info()[:2]) >= asked + 3
    plain_values, plain = trained(name, rules="plain")
    # The combined gradient is the same to the bit, unless a sum makes a part of it.
    if name in ("AgrSum", "GradDrop", "PCGrad"):
        assert torch.equal(parameters, plain)
    else:
        torch.testing.assert_close(parameters, plain, rtol=1e-6, atol=1e-7)
    assert values == pytest.approx(plain_values, rel=1e-5, abs=1e-6)


def test_nothing_is_compiled_for_small_networks():
    asked = fused.cache_info()
    trained("AgrSum")
    assert fused.cache_info() == asked


@pytest.mark.parametrize("special", [float("nan"), float("inf"), -float("inf"), 0.0, -0.0, 1e-45])
def test_a_compiled_rule_takes_special_values_as_the_rule_does(special):
    from domainbed_gs.algorithms.sign import AGREEING

    torch.manual_seed(0)
    gradients = torch.randn(3, 4099)
    gradients[torch.rand_like(gradients) < 0.3] = special
    out, expected = torch.empty(4099), torch.empty(4099)
    fused(AGREEING)(list(gradients), [], out)
    AGREEING(list(gradients), [], expected)
    torch.testing.assert_close(out, expected, rtol=0, atol=0, equal_nan=True)


def _twice(x):
    return 2 * x


def test_where_the_compiler_fails_the_function_itself_runs(monkeypatch, tmp_path, caplog):
    broken = tmp_path / "g++"
    broken.write_text("#!/bin/sh\nexit 1\n")
    broken.chmod(0o755)
    monkeypatch.setenv("TORCHINDUCTOR_CACHE_DIR", str(tmp_path / "cache"))
    monkeypatch.setattr("torch._inductor.config.cpp.cxx", (str(broken),))
    double = fused(_twice)
    with caplog.at_level(logging.WARNING, logger="domainbed"):
        assert double(torch.arange(3.0)).tolist() == [0, 2, 4]
        assert double(torch.arange(4.0)).tolist() == [0, 2, 4, 6]
    said = [record.getMessage() for record in caplog.records if record.name == "domainbed.gradients.fused"]
    assert len(said) == 1
    assert said[0].startswith("going on without compiled functions")


def test_without_a_compiler_nothing_is_compiled(monkeypatch):
    monkeypatch.setenv("CXX", "no-such-compiler")
    assert not can_fuse(torch.device("cpu"))

"""Compiled rules do what the rules do, and without a compiler the rules themselves run."""

import logging
from functools import partial

import pytest
import torch

from domainbed.algorithms import get_algorithm_class
from domainbed.gradients.compilation import compiled, compiles
from domainbed.gradients.componentwise import _apply
from domainbed.hparams_registry import default_hparams

INPUT_SHAPE, K = (3, 8, 8), 3
SLOW = ("AgrRand", "SANDMask", "PCGrad")


@pytest.fixture
def few_are_many(monkeypatch):
    """Networks as small as a test's count as worthwhile, and so does each linear layer's weight."""
    monkeypatch.setattr("domainbed.gradients.compilation.WORTHWHILE", 1)
    monkeypatch.setattr("domainbed.gradients.componentwise._COMPILED_FROM", 1000)


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


@pytest.mark.parametrize("name", ["AgrSum", *(pytest.param(name, marks=pytest.mark.slow) for name in SLOW)])
def test_training_is_the_same_with_compiled_rules_and_without(few_are_many, name):
    used = sum(compiled.cache_info()[:2])
    values, parameters = trained(name)
    assert sum(compiled.cache_info()[:2]) >= used + 3
    plain_values, plain = trained(name, rules="plain")
    torch.testing.assert_close(parameters, plain, rtol=1e-6, atol=1e-7)
    assert values == pytest.approx(plain_values, rel=1e-5, abs=1e-6)


@pytest.mark.parametrize("name", ["AgrSum", "GradDrop"])
def test_nothing_is_compiled_for_small_networks_or_for_rules_that_draw(monkeypatch, name):
    if name == "GradDrop":
        monkeypatch.setattr("domainbed.gradients.compilation.WORTHWHILE", 1)
    used = compiled.cache_info()
    trained(name)
    assert compiled.cache_info() == used


@pytest.mark.parametrize("special", [float("nan"), float("inf"), -float("inf"), 0.0, -0.0, 1e-45])
def test_a_compiled_rule_takes_special_values_as_the_rule_does(special):
    torch.manual_seed(0)
    gradients = torch.randn(3, 4099)
    gradients[torch.rand_like(gradients) < 0.3] = special
    rule = get_algorithm_class("AgrSum").combine
    results = []
    for apply in (compiled(_apply), _apply):
        out = torch.empty(4099)
        apply(partial(rule, None), list(gradients), 1.0, out)
        results.append(out)
    torch.testing.assert_close(*results, rtol=0, atol=0, equal_nan=True)


@pytest.mark.slow
def test_a_process_that_tries_many_rules_compiles_them_all():
    graphs = torch._dynamo.utils.counters["stats"]["unique_graphs"]
    for power in range(10):
        exec(f"def rule(gradients):\n    return gradients[0] ** {power}", scope := {})
        compiled(_apply)(scope["rule"], list(torch.rand(2, 5000)), 1.0, torch.empty(5000))
    assert torch._dynamo.utils.counters["stats"]["unique_graphs"] >= graphs + 10


def _twice(x):
    return 2 * x


def test_where_the_compiler_fails_the_function_itself_runs(monkeypatch, tmp_path, caplog):
    broken = tmp_path / "g++"
    broken.write_text("#!/bin/sh\nexit 1\n")
    broken.chmod(0o755)
    monkeypatch.setenv("TORCHINDUCTOR_CACHE_DIR", str(tmp_path / "cache"))
    monkeypatch.setattr("torch._inductor.config.cpp.cxx", (str(broken),))
    double = compiled(_twice)
    with caplog.at_level(logging.WARNING, logger="domainbed"):
        assert double(torch.arange(3.0)).tolist() == [0, 2, 4]
        assert double(torch.arange(4.0)).tolist() == [0, 2, 4, 6]
    logged = [r.getMessage() for r in caplog.records if r.name == "domainbed.gradients.compilation"]
    assert len(logged) == 1
    assert logged[0].startswith("compilation failed, so rules run uncompiled")


def test_without_a_compiler_nothing_is_compiled(monkeypatch):
    monkeypatch.setenv("CXX", "no-such-compiler")
    assert not compiles(2**30, torch.device("cpu"))
    monkeypatch.delenv("CXX")
    assert compiles(2**30, torch.device("cpu"))
    assert not compiles(1000, torch.device("cpu"))

"""The registry's order, classes of forks, and properties of single algorithms."""

import logging
import subprocess
import sys

import numpy as np
import pytest
import torch

import domainbed.algorithms as algorithms
from domainbed.errors import UsageError
from domainbed.hparams import Hparam, const, override
from domainbed.hparams_registry import default_hparams, table

SHAPE = (3, 28, 28)


def minibatches(k=3, n=6):
    torch.manual_seed(3)
    return [(torch.randn(n, *SHAPE), torch.randint(2, (n,))) for _ in range(k)]


def make(name, k=3, **overrides):
    torch.manual_seed(0)
    return algorithms.get_algorithm_class(name)(SHAPE, 2, k, default_hparams(name, "Debug28") | overrides)


def test_a_class_that_a_fork_adds_to_the_module_is_found(monkeypatch):
    fork = type("Fork", (algorithms.ERM,), {})
    monkeypatch.setattr(algorithms, "Fork", fork, raising=False)
    assert algorithms.get_algorithm_class("Fork") is fork


def check_order(names):
    """Upstream's algorithms come first, then the test-bed's own, then the plugin's."""
    assert names[:34] == list(algorithms.UPSTREAM)
    own = [algorithms.get_algorithm_class(name).__module__.startswith("domainbed.") for name in names]
    assert own == sorted(own, reverse=True)
    assert names[own.index(False) :][:3] == ["AgrSum", "AgrRand", "PCGrad"]


def test_upstreams_algorithms_are_listed_first():
    assert len(algorithms.UPSTREAM) == 34
    check_order(algorithms.ALGORITHMS)
    assert len(algorithms.ALGORITHMS) >= 66


@pytest.mark.parametrize(
    "first", ["import domainbed_gs.algorithms.sharpness", "domainbed.networks:FEATURIZERS"]
)
def test_the_order_of_algorithms_does_not_depend_on_what_was_looked_up_before(first):
    if ":" in first:  # which loads the plugins
        module, _, registry = first.partition(":")
        first = f"from {module} import {registry}; list({registry})"
    program = f"{first}; import domainbed.algorithms as a; print(*a.ALGORITHMS)"
    run = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)
    check_order(run.stdout.split())


def test_the_base_class_has_no_update_and_no_prediction():
    base = algorithms.Algorithm(SHAPE, 2, 3, {})
    with pytest.raises(NotImplementedError):
        base.update([])
    with pytest.raises(NotImplementedError):
        base.predict(torch.zeros(1, *SHAPE))


def test_state_dict_has_every_parameter_under_upstreams_two_names():
    names = make("ERM").state_dict().keys()
    assert {
        "featurizer.conv1.weight",
        "network.0.conv1.weight",
        "classifier.weight",
        "network.1.weight",
    } <= names


def test_loading_restores_the_number_of_updates():
    """Annealing depends on it."""
    irm = make("IRM", irm_penalty_anneal_iters=2)
    irm.update(minibatches())
    other = make("IRM", irm_penalty_anneal_iters=2)
    other.load_state_dict(irm.state_dict())
    assert other.updates == 1
    assert other.update_count.tolist() == [1]


def test_group_dro_weights_sum_to_one_and_are_largest_for_the_worst_environment():
    dro = make("GroupDRO", groupdro_eta=1.0)
    assert dro.q.shape == (0,)
    batches = minibatches()
    with torch.no_grad():
        losses = [torch.nn.functional.cross_entropy(dro.predict(x), y).item() for x, y in batches]
    dro.update(batches)
    assert dro.q.sum().item() == pytest.approx(1)
    assert dro.q.argsort().tolist() == np.argsort(losses).tolist()


def test_mldg_keeps_one_environment_for_meta_train(caplog):
    with caplog.at_level(logging.WARNING):
        mldg = make("MLDG", k=2)
    assert mldg.num_meta_test == 1
    assert "n_meta_test is 2 with 2 source environments; using 1" in caplog.text
    before = [p.detach().clone() for p in mldg.parameters()]
    mldg.update(minibatches(2))
    assert any(not torch.equal(a, b) for a, b in zip(before, mldg.parameters(), strict=True))
    with pytest.raises(UsageError, match="MLDG needs at least 2 source environments, not 1"):
        make("MLDG", k=1)
    with pytest.raises(UsageError, match="hyper-parameter n_meta_test must be at least 1, not 0"):
        override({}, {"n_meta_test": 0}, table("MLDG"), "Debug28")


def test_hyper_parameters_of_a_forks_class_are_in_its_table(monkeypatch):
    own = {"mine": Hparam(3, const(3))}
    monkeypatch.setattr(algorithms, "Mine", type("Mine", (algorithms.ERM,), {"HPARAMS": own}), raising=False)
    assert default_hparams("Mine", "Debug28")["mine"] == 3

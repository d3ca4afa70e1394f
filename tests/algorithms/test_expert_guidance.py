"""LFME and ERM+: golden losses and updates, and their identities."""

import copy

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn

from domainbed.algorithms import get_algorithm_class
from domainbed.algorithms.optimizers import adam, descend
from domainbed.hparams_registry import default_hparams

pytestmark = pytest.mark.usefixtures("float64")


def make(name, k=2, seed=0, **overrides):
    hparams = default_hparams(name, "Debug28") | {"featurizer": "mlp", "mlp_width": 4} | overrides
    torch.manual_seed(seed)
    return get_algorithm_class(name)((3,), 3, k, hparams)


def batches_of(sizes=(4, 2), seed=0):
    generator = torch.Generator().manual_seed(seed)
    return [
        (torch.randn(n, 3, generator=generator), torch.randint(3, (n,), generator=generator)) for n in sizes
    ]


class Given(nn.Module):
    """A network whose logits are given, whatever the inputs."""

    def __init__(self, logits):
        super().__init__()
        self.logits = nn.Parameter(torch.tensor(logits))

    def forward(self, x):
        return self.logits


def test_golden_loss_of_lfme(vectors):
    case = vectors("field_networks")["lfme_loss"]
    algorithm = make("LFME", k=1, lfme_reg=case["weight"])
    algorithm.network, algorithm.experts[0] = Given(case["logits"]), Given(case["expert_logits"])
    algorithm.optimizer = algorithm.new_optimizer()
    returned = algorithm.update([(torch.zeros(5, 3), torch.tensor(case["y"]))])
    assert returned["loss"] == pytest.approx(case["loss"], rel=1e-12)
    assert returned["nll"] == pytest.approx(case["cross_entropy"], rel=1e-12)
    assert returned["guidance"] == pytest.approx(case["guidance"], rel=1e-12)
    np.testing.assert_allclose(algorithm.network.logits.grad, case["grad_logits"], atol=1e-12)


def test_golden_loss_of_ermplus(vectors):
    case = vectors("field_networks")["ermplus_loss"]
    algorithm = make("ERMPlus", ermplus_reg=case["weight"])
    algorithm.network = Given(case["logits"])
    algorithm.optimizer = algorithm.new_optimizer()
    returned = algorithm.update([(torch.zeros(5, 3), torch.tensor(case["y"]))])
    assert returned["loss"] == pytest.approx(case["loss"], rel=1e-12)
    assert returned["distance"] == pytest.approx(case["mse"], rel=1e-12)


@pytest.mark.parametrize("sizes", ["equal", "unequal"])
def test_golden_updates_of_lfme(vectors, sizes):
    golden = vectors("field_networks")["lfme_update"]
    case, hparams = golden[sizes], golden["hparams"]
    algorithm = make("LFME", lfme_reg=hparams["lfe_reg"], lr=hparams["lr"])
    algorithm.experts = nn.ModuleList(nn.Linear(3, 3) for _ in range(2))
    algorithm.network = nn.Linear(3, 3)
    networks = [*algorithm.experts, algorithm.network]
    for network, values in zip(networks, golden["init"], strict=True):
        network.weight.data, network.bias.data = torch.tensor(values["w"]), torch.tensor(values["b"])
    algorithm.optimizer = algorithm.new_optimizer()
    algorithm.expert_optimizers = [adam(each.parameters(), lr=hparams["lr"]) for each in algorithm.experts]
    minibatches = [(torch.tensor(each["x"]), torch.tensor(each["y"])) for each in case["minibatches"]]
    for expected in case["logs"]:
        assert algorithm.update(minibatches)["loss"] == pytest.approx(expected["loss"], rel=1e-9)
    for network, values in zip(networks, case["after"], strict=True):
        np.testing.assert_allclose(network.weight.detach(), values["w"], atol=1e-9)
        np.testing.assert_allclose(network.bias.detach(), values["b"], atol=1e-9)


SEEDS = st.integers(0, 2**32)


@settings(max_examples=10)
@given(SEEDS, st.floats(0.01, 10))
def test_without_guidance_the_network_is_erms_and_the_experts_do_not_care(seed, weight):
    erm, free, guided = make("ERM"), make("LFME", lfme_reg=0.0), make("LFME", lfme_reg=weight)
    for step in range(2):
        for algorithm in (erm, free, guided):
            algorithm.update(batches_of(seed=seed + step))
    for a, b in zip(erm.network.parameters(), free.network.parameters(), strict=True):
        torch.testing.assert_close(a, b)
    for a, b in zip(free.experts.parameters(), guided.experts.parameters(), strict=True):
        assert torch.equal(a, b)


@settings(max_examples=10)
@given(SEEDS, st.integers(1, 3))
def test_an_expert_is_erm_on_its_environment(seed, k):
    algorithm = make("LFME", k=k)
    experts = [copy.deepcopy(expert) for expert in algorithm.experts]
    optimizers = [adam(expert.parameters(), lr=algorithm.hparams["lr"]) for expert in experts]
    for step in range(2):
        batches = batches_of((4, 2, 3)[:k], seed + step)
        algorithm.update(batches)
        for (x, y), expert, optimizer in zip(batches, experts, optimizers, strict=True):
            descend(F.cross_entropy(expert(x), y), optimizer)
    for a, b in zip(algorithm.experts.parameters(), nn.ModuleList(experts).parameters(), strict=True):
        torch.testing.assert_close(a, b)


@settings(max_examples=10)
@given(SEEDS, st.floats(0.01, 10))
def test_experts_that_are_always_right_make_it_ermplus(seed, weight):
    lfme, plus = make("LFME", lfme_reg=weight), make("ERMPlus", ermplus_reg=weight)
    lfme._train_expert = lambda k, x, y: F.one_hot(y, 3).double()
    for step in range(2):
        lfme.update(batches_of(seed=seed + step))
        plus.update(batches_of(seed=seed + step))
    for a, b in zip(lfme.network.parameters(), plus.parameters(), strict=True):
        torch.testing.assert_close(a, b)


@settings(max_examples=10)
@given(SEEDS)
def test_ermplus_without_a_weight_is_erm(seed):
    erm, plus = make("ERM"), make("ERMPlus", ermplus_reg=0.0)
    for algorithm in (erm, plus):
        algorithm.update(batches_of(seed=seed))
    for a, b in zip(erm.parameters(), plus.parameters(), strict=True):
        torch.testing.assert_close(a, b)

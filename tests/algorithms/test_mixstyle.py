"""MixStyle: golden vectors, what mixing keeps, partners, and the blocks after which it is done."""

from collections import Counter

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from domainbed.algorithms import mixstyle
from domainbed.algorithms.erm import ERM
from domainbed.algorithms.mixstyle import MixStyle, crossdomain_partners, mix_styles
from domainbed.errors import UsageError
from domainbed.hparams_registry import default_hparams

pytestmark = pytest.mark.usefixtures("float64")


def make(cls=MixStyle, shape=(3, 28, 28), **overrides):
    torch.manual_seed(0)
    hparams = default_hparams(cls.__name__, "Debug28") | {"featurizer": "small_cnn"} | overrides
    return cls(shape, 2, 2, hparams)


def batches(sizes=(4, 3), shape=(3, 28, 28)):
    return [(torch.randn(n, *shape), torch.randint(2, (n,))) for n in sizes]


def test_golden(vectors):
    case = vectors("field_networks")["mixstyle"]
    x = torch.tensor(case["x"], requires_grad=True)
    y = mix_styles(x, torch.tensor(case["permutation"]), torch.tensor(case["lam"]))
    np.testing.assert_allclose(y.detach(), case["y"], atol=1e-12)
    (gradient,) = torch.autograd.grad(y, x, torch.tensor(case["upstream_grad"]))
    np.testing.assert_allclose(gradient, case["grad_x"], atol=1e-12)


def test_golden_identities(vectors):
    case = vectors("field_networks")["mixstyle_identity"]
    x = torch.tensor(case["x"])
    n = len(x)
    whole = mix_styles(x, torch.arange(n).flip(0), torch.ones(n))
    np.testing.assert_allclose(whole, case["y_lam_one"], atol=1e-12)
    own = mix_styles(x, torch.arange(n), torch.full((n,), 0.3))
    np.testing.assert_allclose(own, case["y_perm_identity"], atol=1e-12)
    torch.testing.assert_close(own, x)


@pytest.mark.parametrize("index", [0, 1])
def test_golden_partners_of_two_environments(vectors, monkeypatch, index):
    case = vectors("field_networks")["mixstyle_crossdomain_permutation"][index]
    draws = iter([case["draw_first"], case["draw_second"]])
    monkeypatch.setattr(mixstyle.torch, "randperm", lambda n: torch.tensor(next(draws)))
    assert crossdomain_partners([case["B"] // 2] * 2).tolist() == case["permutation"]


@given(st.integers(1, 6), st.integers(1, 4), st.integers(2, 6), st.integers(0, 2**32))
def test_means_and_deviations_are_mixed_and_nothing_else(n, channels, side, seed):
    torch.manual_seed(seed)
    x, partners, share = torch.randn(n, channels, side, side) * 3 + 1, torch.randperm(n), torch.rand(n)
    y = mix_styles(x, partners, share)
    weight = share[:, None, None, None]
    mean, deviation = x.mean((2, 3), keepdim=True), (x.var((2, 3), keepdim=True) + 1e-6).sqrt()
    mixed = weight * deviation + (1 - weight) * deviation[partners]
    torch.testing.assert_close(y.mean((2, 3), keepdim=True), weight * mean + (1 - weight) * mean[partners])
    torch.testing.assert_close((y - y.mean((2, 3), keepdim=True)) / mixed, (x - mean) / deviation)


@given(st.integers(1, 6), st.integers(2, 5), st.integers(0, 2**32))
def test_limits_are_the_sample_itself_and_its_partners_style(n, side, seed):
    torch.manual_seed(seed)
    x, partners = torch.randn(n, 2, side, side), torch.randperm(n)
    torch.testing.assert_close(mix_styles(x, partners, torch.ones(n)), x)
    torch.testing.assert_close(mix_styles(x, torch.arange(n), torch.rand(n)), x)
    y = mix_styles(x, partners, torch.zeros(n))
    torch.testing.assert_close(y.mean((2, 3)), x[partners].mean((2, 3)))
    torch.testing.assert_close(y.std((2, 3)), x[partners].std((2, 3)), rtol=1e-3, atol=1e-3)


@settings(max_examples=50)
@given(st.lists(st.integers(1, 6), min_size=2, max_size=4), st.integers(0, 2**32))
def test_crossdomain_partners_are_of_other_environments(sizes, seed):
    torch.manual_seed(seed)
    environment = torch.repeat_interleave(torch.arange(len(sizes)), torch.tensor(sizes))
    partners = crossdomain_partners(sizes)
    assert len(partners) == sum(sizes)
    assert (environment[partners] != environment).all()


def test_crossdomain_partners_are_uniform():
    torch.manual_seed(0)
    counts = Counter(crossdomain_partners([1, 2, 3])[1].item() for _ in range(4000))
    assert set(counts) == {0, 3, 4, 5}
    assert all(abs(count / 4000 - 0.25) < 0.04 for count in counts.values())


@settings(max_examples=5)
@given(st.integers(0, 2**32))
def test_without_mixing_it_is_erm_and_predictions_mix_nothing(seed):
    erm, still, mixing = make(ERM), make(mixstyle_p=0.0), make(mixstyle_p=1.0)
    torch.manual_seed(seed)
    x = torch.randn(5, 3, 28, 28)
    assert torch.equal(mixing.predict(x), erm.predict(x))
    minibatches = batches()
    for algorithm in (erm, still, mixing):
        torch.manual_seed(1)
        algorithm.update(minibatches)
    for a, b in zip(erm.parameters(), still.parameters(), strict=True):
        assert torch.equal(a, b)
    first, other = next(erm.parameters()), next(mixing.parameters())
    assert not torch.equal(first.grad, other.grad)


def test_every_block_tosses_its_own_coin(monkeypatch):
    calls = []
    monkeypatch.setattr(mixstyle, "mix_styles", lambda x, partners, weights: calls.append(len(calls)) or x)
    algorithm = make(featurizer="mnist_cnn")
    assert algorithm.mixed == ("conv2", "conv3")
    for step in range(30):
        torch.manual_seed(step)
        algorithm.update(batches((1, 1)))
    assert 15 < len(calls) < 45


@pytest.mark.parametrize("mix", ["random", "crossdomain"])
def test_one_environment_has_random_partners(mix):
    algorithm = make(mixstyle_p=1.0, mixstyle_mix=mix)
    assert np.isfinite(algorithm.update(batches((5,)))["loss"])


def test_blocks_are_those_of_the_published_networks_or_the_ones_named():
    resnet = {"featurizer": "resnet18", "pretrained": False, "shape": (3, 64, 64)}
    assert make(**resnet).mixed == ("layer1", "layer2", "layer3")
    assert make(**resnet, mixstyle_layers="layer1 layer2").mixed == ("layer1", "layer2")
    with pytest.raises(UsageError, match=r"mixstyle_layers: unknown block 'layr1'\nDid you mean layer1"):
        make(**resnet, mixstyle_layers="layr1")


def test_featurizers_without_maps_are_refused():
    with pytest.raises(UsageError, match="MixStyle finds no feature maps after the inner blocks of"):
        make(featurizer="mlp")
    with pytest.raises(UsageError, match="the output of block hidden1 is no map"):
        make(featurizer="mlp", mixstyle_layers="hidden1")

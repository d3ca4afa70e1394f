"""Moments of per-sample gradients against explicit ones, in float64."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from torch import nn

from domainbed.algorithms.fishr import Fishr
from domainbed.errors import UsageError
from domainbed.networks.small_cnn import SmallCNN
from domainbed_gs.alignment import layer_sums, moments
from domainbed_gs.alignment.compressed import CompressedVector, gram
from domainbed_gs.alignment.moments import GroupMoments

N = 7


def networks():
    """Name -> network of inputs (3, 8, 8) with three classes."""
    flat = nn.Flatten
    return {
        "mlp": lambda: nn.Sequential(flat(), nn.Linear(192, 7), nn.Tanh(), nn.Linear(7, 3, bias=False)),
        "convolutions": lambda: nn.Sequential(
            nn.Conv2d(3, 6, 3, stride=2, padding=2, dilation=2),
            nn.ReLU(inplace=True),
            nn.Conv2d(6, 12, 3, groups=3, bias=False),
            flat(),
            nn.LazyLinear(3),
        ),
        "convolution to one position": lambda: nn.Sequential(
            nn.Conv2d(3, 6, 8, groups=3), flat(), nn.Linear(6, 3)
        ),
        "positions and norms": lambda: nn.Sequential(
            flat(2), nn.Linear(64, 5), nn.LayerNorm(5), nn.GELU(), flat(), nn.Linear(15, 3)
        ),
        "frozen": lambda: nn.Sequential(
            nn.Conv2d(3, 4, 3).requires_grad_(False), nn.BatchNorm2d(4), nn.Conv2d(4, 2, 5), flat(),
            nn.LazyLinear(3),
        ),
        "small_cnn": lambda: nn.Sequential(
            nn.Upsample(scale_factor=4), SmallCNN((3, 32, 32)), nn.Linear(128, 3)
        ),
    }  # fmt: skip


@pytest.fixture(params=networks())
def network(request, float64):
    torch.manual_seed(0)
    network = networks()[request.param]().eval()
    network(samples()[0])  # lazy layers learn their sizes
    return network


def samples():
    torch.manual_seed(1)
    return torch.randn(N, 3, 8, 8), torch.randint(0, 3, (N,))


def trainable(network):
    return [parameter for parameter in network.parameters() if parameter.requires_grad]


def gradients_of(network, x, labels):
    """Per-sample gradients (N, P)."""
    rows = []
    for i in range(len(x)):
        loss = F.cross_entropy(network(x[i : i + 1]), labels[i : i + 1])
        rows.append(torch.cat([each.flatten() for each in torch.autograd.grad(loss, trainable(network))]))
    return torch.stack(rows)


def explicit(network, x, y):
    """The moments from whole gradients, and the Fisher information from those of each class."""
    gradients = gradients_of(network, x, y)
    probabilities = network(x).softmax(1).detach()
    fisher = sum(
        (probabilities[:, label, None] * gradients_of(network, x, torch.full_like(y, label)).square()).mean(0)
        for label in range(probabilities.shape[1])
    )
    variance = gradients.var(0, unbiased=False)
    return {"mean": gradients.mean(0), "variance": variance, "fisher": fisher}


def found_in_order(network, x, y, quantities=moments.MOMENTS):
    (found,) = GroupMoments(network, quantities, [None]).of(x, y, lambda: None)
    return found


def assert_same(found, expected):
    """Blocks of components may come in another order, the same for all quantities."""
    assert found.keys() == expected.keys()
    places = {name: torch.argsort(vectors["mean"]) for name, vectors in (("f", found), ("e", expected))}
    for name in expected:
        torch.testing.assert_close(
            found[name][places["f"]], expected[name][places["e"]], rtol=1e-9, atol=1e-15
        )


def test_moments_equal_those_of_explicit_per_sample_gradients(network):
    x, y = samples()
    assert_same(found_in_order(network, x, y), explicit(network, x, y))


def test_moments_do_not_depend_on_chunks_and_blocks(network, monkeypatch):
    x, y = samples()
    whole = explicit(network, x, y)
    monkeypatch.setattr(moments, "MOST_SAMPLES", 2)
    monkeypatch.setattr(layer_sums, "BLOCK", 300)
    assert_same(found_in_order(network, x, y), whole)


def test_moments_do_not_depend_on_the_order_of_samples(network):
    x, y = samples()
    order = torch.randperm(N)
    first, second = found_in_order(network, x, y), found_in_order(network, x[order], y[order])
    for name in first:
        torch.testing.assert_close(first[name], second[name], rtol=1e-9, atol=1e-15)


def test_the_classifiers_variance_is_what_fishr_penalises(float64):
    torch.manual_seed(0)
    hparams = {"featurizer": "mlp", "mlp_width": 5, "mlp_depth": 3, "mlp_dropout": 0.0, "lr": 0.1}
    hparams |= {"weight_decay": 0.0, "lambda": 1.0, "penalty_anneal_iters": 0, "ema": 0.0}
    hparams |= {"nonlinear_classifier": False}
    algorithm = Fishr((6,), 3, 2, hparams)
    minibatches = [(torch.randn(4, 6), torch.randint(0, 3, (4,))) for _ in range(2)]
    layers = ["1"]
    measured = GroupMoments(algorithm.network, ["variance"], [layers])
    vectors = [measured.of(x, y, lambda: None)[0]["variance"] for x, y in minibatches]
    distance = (vectors[0] - vectors[1]).square().mean()
    # Of two environments: the mean squared distance from their mean is a quarter of that between them.
    assert algorithm.update(minibatches)["penalty"] == pytest.approx(float(distance) / 4, rel=1e-9)


def test_only_what_is_asked_for_is_computed(float64):
    network = networks()["mlp"]()
    assert list(found_in_order(network, *samples(), ["variance"])) == ["variance"]


def test_a_network_that_mixes_samples_is_refused_in_one_line():
    network = nn.Sequential(nn.BatchNorm2d(3), nn.Flatten(), nn.Linear(192, 3))
    with pytest.raises(UsageError, match=r"per-sample gradients cannot be formed: batch norm 0 mixes"):
        found_in_order(network, *samples())


def test_a_short_vector_is_kept_and_a_long_one_keeps_its_inner_products(float64):
    torch.manual_seed(0)
    vectors = torch.randn(3, 50_000)
    vectors[1] = vectors[0] + 0.1 * vectors[1]
    vectors[2, ::1000] += 30  # a few large components
    kept, compressed = [], []
    for vector in vectors:
        for size, into in ((50_000, kept), (4096, compressed)):
            pieces = CompressedVector(len(vector), vector, size)
            for piece in vector.split([1, 30_000, 19_999]):
                pieces.append(piece)
            into.append(pieces.values)
    assert all(torch.equal(ours, vector) for ours, vector in zip(kept, vectors, strict=True))
    assert {len(values) for values in compressed} == {4096}
    exact, estimated = gram(list(vectors)), gram(compressed)
    norms = np.sqrt(np.outer(exact.diagonal(), exact.diagonal()))
    assert np.abs(estimated - exact).max() < 5 * math.sqrt(2 / 4096) * norms.max()
    # A distance is estimated from the difference, so that near vectors stay near.
    squared = [each[0, 0] + each[1, 1] - 2 * each[0, 1] for each in (estimated, exact)]
    assert squared[0] == pytest.approx(squared[1], rel=5 * math.sqrt(2 / 4096))


def test_no_sample_has_its_whole_gradient_in_memory(monkeypatch):
    from torch.utils._python_dispatch import TorchDispatchMode

    network = nn.Sequential(nn.Flatten(), nn.Linear(192, 400), nn.ReLU(), nn.Linear(400, 3))
    weight = 192 * 400
    largest = []

    class Largest(TorchDispatchMode):
        def __torch_dispatch__(self, function, types, args=(), kwargs=None):
            out = function(*args, **(kwargs or {}))
            if isinstance(out, torch.Tensor):
                largest.append(out.numel())
            return out

    x, y = samples()
    with Largest():
        found_in_order(network, x.float(), y)
    assert weight <= max(largest) < 2 * weight  # never N gradients

"""Similarities against means over pairs of explicit per-sample gradients."""

from __future__ import annotations

import itertools
import math

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from torch import nn

from domainbed_gs.similarity.measure import COLUMNS, mean_and_error, similarities

SIZES = [3, 1, 2]


@pytest.fixture
def network(float64):
    torch.manual_seed(0)
    return nn.Sequential(nn.Linear(5, 6), nn.ReLU(), nn.Linear(6, 3))


def explicit(network, x, y):
    rows = []
    for i in range(len(x)):
        loss = F.cross_entropy(network(x[i : i + 1]), y[i : i + 1])
        gradients = torch.autograd.grad(loss, list(network.parameters()))
        rows.append(torch.cat([gradient.flatten() for gradient in gradients]).numpy())
    return rows


def test_similarities_are_means_over_all_pairs_of_distinct_samples(network):
    x, y = torch.randn(6, 5), torch.full((6,), 2)
    gradients = explicit(network, x, y)
    environments = np.repeat(range(3), SIZES)
    cosines, agreement, zeros = ({True: [], False: []} for _ in range(3))
    for i, j in itertools.combinations(range(6), 2):
        a, b = gradients[i], gradients[j]
        same = environments[i] == environments[j]
        cosines[same].append(a @ b / np.linalg.norm(a) / np.linalg.norm(b))
        agreement[same].append(np.mean(a * b > 0))
        zeros[same].append(np.mean(a * b == 0))
    found = similarities(network, x, y, SIZES)
    assert tuple(found) == COLUMNS
    assert (found["samples"], found["skipped"]) == (6, 0)
    assert (found["within_pairs"], found["between_pairs"]) == (4, 11)
    for kind, same in (("within", True), ("between", False)):
        for name, values in (("cosine", cosines[same]), ("agreement", agreement[same])):
            assert found[f"{kind}_{name}"] == pytest.approx(np.mean(values), rel=1e-12)
            error = np.std(values, ddof=1) / np.sqrt(len(values))
            assert found[f"{kind}_{name}_se"] == pytest.approx(error, rel=1e-10)
        assert np.mean(zeros[same]) > 0
        assert found[f"{kind}_zeros"] == pytest.approx(np.mean(zeros[same]))
    means = [np.mean([gradients[i] for i in np.flatnonzero(environments == e)], axis=0) for e in range(3)]
    assert found["consensus"] == pytest.approx(np.mean(np.abs(np.sum(np.sign(means), axis=0)) == 3))
    assert found["zeros"] == pytest.approx(np.mean(np.any(np.equal(means, 0), axis=0)))


def test_equal_samples_have_similarity_one(network):
    x, y = torch.randn(1, 5).expand(4, 5), torch.zeros(4, dtype=torch.int64)
    found = similarities(nn.Sequential(nn.Linear(5, 3)), x, y, [2, 2])
    ones = [found[f"{kind}_{name}"] for kind in ("within", "between") for name in ("cosine", "agreement")]
    assert ones == pytest.approx([1, 1, 1, 1])
    assert found["consensus"] == 1


def test_samples_with_a_zero_gradient_are_counted_and_left_out():
    # In float32 the softmax of logits so far apart is exact, and so is its gradient of 0.
    network = nn.Linear(2, 2, bias=False)
    with torch.no_grad():
        network.weight.copy_(torch.tensor([[1.0, 0.0], [0.0, 1.0]]))
    x = torch.tensor([[500.0, 0.0], [1.0, 2.0], [2.0, 1.0], [1.0, 1.0]])
    found = similarities(network, x, torch.zeros(4, dtype=torch.int64), [2, 2])
    assert (found["samples"], found["skipped"]) == (4, 1)
    assert (found["within_pairs"], found["between_pairs"]) == (1, 2)
    assert found["within_cosine"] > 0.9
    assert math.isnan(found["within_cosine_se"])
    assert not math.isnan(found["between_cosine_se"])


def test_mean_and_error_of_too_few_values_are_nan():
    assert mean_and_error(np.array([1.0, 3.0])) == (2.0, 1.0)
    assert [math.isnan(value) for value in mean_and_error(np.array([1.0]))] == [False, True]
    assert all(math.isnan(value) for value in mean_and_error(np.array([])))

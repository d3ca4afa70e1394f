"""The supervised contrastive loss against loops over its definition."""

import math

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from domainbed.algorithms.supervised_contrastive import (
    SupConLossLambda,
    different_samples,
    same,
    similarities,
)
from domainbed.errors import UsageError

batches = st.lists(st.tuples(st.integers(0, 2), st.integers(0, 2)), min_size=1, max_size=9)


def batch(kinds, seed=0):
    generator = torch.Generator().manual_seed(seed)
    features = torch.randn(len(kinds), 4, generator=generator, dtype=torch.float64)
    return features, torch.tensor([y for y, _ in kinds]), torch.tensor([e for _, e in kinds])


def by_loops(features, labels, environments, lamda, temperature):
    rows = [[v / math.hypot(*row) for v in row] for row in features.tolist()]
    size, total, terms = len(rows), 0.0, 0
    for i in range(size):
        positive, denominator = [], 1e-5
        for j in range(size):
            if i == j:
                continue
            weight = lamda if environments[i] == environments[j] else 1 - lamda
            score = weight * math.exp(sum(a * b for a, b in zip(rows[i], rows[j], strict=True)) / temperature)
            denominator += score
            if labels[i] == labels[j]:
                positive.append(score)
        if positive:
            total += sum(math.log(score / denominator + 1e-5) for score in positive) / len(positive)
            terms += 1
    return -total / (terms + 1)


@settings(deadline=None)
@given(batches, st.sampled_from([0.0, 0.3, 0.5, 1.0]), st.sampled_from([0.05, 0.07, 1.0]))
def test_the_loss_equals_loops_over_all_pairs(kinds, lamda, temperature):
    features, labels, environments = batch(kinds)
    loss = SupConLossLambda(lamda, temperature)(features, labels, environments)
    expected = by_loops(features, labels.tolist(), environments.tolist(), lamda, temperature)
    assert loss.item() == pytest.approx(expected, rel=1e-9, abs=1e-12)


@settings(deadline=None)
@given(batches, st.randoms(use_true_random=False))
def test_the_loss_is_invariant_to_order_norms_and_numbers_of_environments(kinds, random):
    features, labels, environments = batch(kinds)
    loss = SupConLossLambda()
    order = torch.tensor(random.sample(range(len(kinds)), len(kinds)))
    scale = torch.rand(len(kinds), 1, dtype=torch.float64) + 0.5
    moved = loss((features * scale)[order], labels[order], (2 - environments)[order])
    assert moved.item() == pytest.approx(loss(features, labels, environments).item(), rel=1e-9, abs=1e-12)


def test_without_positives_loss_and_gradient_are_0():
    features = torch.randn(3, 4, requires_grad=True)
    loss = SupConLossLambda()(features, torch.arange(3), torch.zeros(3, dtype=torch.int64))
    loss.backward()
    assert loss.item() == 0
    assert features.grad.eq(0).all()


def test_the_loss_has_full_precision_under_autocast():
    features, labels, environments = batch([(i % 2, i % 3) for i in range(8)])
    rounded = features.bfloat16()
    with torch.autocast("cpu", dtype=torch.bfloat16):
        loss = SupConLossLambda()(rounded, labels, environments)
    assert loss.dtype == torch.float32
    expected = by_loops(rounded.double(), labels.tolist(), environments.tolist(), 0.5, 0.07)
    assert loss.item() == pytest.approx(expected, rel=1e-5)


def test_masks_and_similarities_by_hand():
    labels = torch.tensor([1, 0, 1])
    assert same(labels).tolist() == [[True, False, True], [False, True, False], [True, False, True]]
    assert different_samples(labels).tolist() == [
        [False, True, True],
        [True, False, True],
        [True, True, False],
    ]
    features = torch.tensor([[3.0, 4.0], [1.0, 0.0]])
    assert similarities(features, 0.5, normalized=False).tolist() == [[50.0, 6.0], [6.0, 2.0]]
    cosines = similarities(features, 0.5, normalized=True)
    torch.testing.assert_close(cosines, torch.tensor([[2.0, 1.2], [1.2, 2.0]]))


def test_invalid_arguments_are_rejected():
    with pytest.raises(UsageError, match=r"takes a lamda between 0 and 1, not 1\.5"):
        SupConLossLambda(lamda=1.5)
    with pytest.raises(UsageError, match="takes a temperature above 0, not 0"):
        SupConLossLambda(temperature=0)

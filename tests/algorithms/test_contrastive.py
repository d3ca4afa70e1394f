"""CAD and CondCAD: the bottleneck loss against loops over its definition, in float64."""

import math

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from domainbed.algorithms import get_algorithm_class
from domainbed.hparams_registry import default_hparams

T, BASE = 0.1, 0.07
kinds = st.lists(st.tuples(st.integers(0, 2), st.integers(0, 2)), min_size=1, max_size=8)


def make(name, **overrides):
    torch.manual_seed(0)
    hparams = default_hparams(name, "Debug28") | {"mlp_width": 8} | overrides
    return get_algorithm_class(name)((5,), 3, 3, hparams)


def logsumexp(values):
    largest = max(values)
    return largest + math.log(sum(math.exp(value - largest) for value in values))


def by_loops(z, y, d, conditional, flipped, normalized):
    rows = [[v / math.hypot(*row) for v in row] if normalized else row for row in z.tolist()]
    n, terms = len(rows), []
    for i in range(n):
        dots = [sum(a * b for a, b in zip(rows[i], row, strict=True)) / T for row in rows]
        dots[i] = 0.0
        partners = [j for j in range(n) if j != i and y[j] == y[i]]
        compared = partners if conditional else [j for j in range(n) if j != i]
        # Unless conditional, a sample belongs to its own environment.
        pool = partners if conditional else range(n)
        chosen = [j for j in pool if (d[j] == d[i]) != flipped]
        if partners and chosen:
            term = logsumexp([dots[j] for j in chosen]) - logsumexp([dots[j] for j in compared])
            terms.append((-1 if flipped else 1) * T / BASE * term)
    return sum(terms) / len(terms) if terms else 0.0


@pytest.mark.parametrize("normalized", [False, True])
@pytest.mark.parametrize("flipped", [True, False])
@pytest.mark.parametrize("name", ["CAD", "CondCAD"])
@settings(max_examples=40, deadline=None)
@given(kinds=kinds)
def test_the_bottleneck_loss_equals_loops_over_all_pairs(name, flipped, normalized, kinds):
    algorithm = make(name, is_flipped=flipped, is_normalized=normalized)
    z = torch.randn(len(kinds), 4, dtype=torch.float64, requires_grad=True)
    y, d = (torch.tensor(each) for each in zip(*kinds, strict=True))
    loss = algorithm.bn_loss(z, y, d)
    expected = by_loops(z, y.tolist(), d.tolist(), name == "CondCAD", flipped, normalized)
    assert loss.item() == pytest.approx(expected, rel=1e-9, abs=1e-9)
    loss.backward()
    assert z.grad.isfinite().all()


@pytest.mark.parametrize("name", ["CAD", "CondCAD"])
def test_large_features_give_a_finite_loss_and_gradient(name):
    algorithm = make(name)
    z = (torch.randn(6, 4) * 300).requires_grad_()
    loss = algorithm.bn_loss(z, torch.tensor([0, 0, 0, 1, 1, 1]), torch.tensor([0, 1, 2, 0, 1, 2]))
    loss.backward()
    assert loss.isfinite()
    assert z.grad.isfinite().all()


@pytest.mark.parametrize("name", ["CAD", "CondCAD"])
def test_similarities_keep_full_precision_under_autocast(name):
    algorithm = make(name)
    z = torch.randn(6, 4).bfloat16()
    y, d = torch.tensor([0, 0, 1, 0, 1, 1]), torch.tensor([0, 0, 0, 1, 1, 1])
    with torch.autocast("cpu", dtype=torch.bfloat16):
        loss = algorithm.bn_loss(z, y, d)
    assert loss.dtype == torch.float32
    assert loss.item() == pytest.approx(algorithm.bn_loss(z.double(), y, d).item(), rel=1e-5)


@pytest.mark.parametrize("name", ["CAD", "CondCAD"])
def test_the_projection_is_built_after_the_classifier_and_trained(name):
    """Upstream raises at construction."""
    algorithm = make(name, is_project=True)
    names = [key for key, _ in algorithm.named_parameters()]
    assert names[-4:] == ["project.0.weight", "project.0.bias", "project.2.weight", "project.2.bias"]
    assert algorithm.project[2].weight.shape == (128, 8)
    assert sum(len(group["params"]) for group in algorithm.optimizer.param_groups) == len(names)
    before = [parameter.clone() for parameter in algorithm.project.parameters()]
    algorithm.update([(torch.randn(6, 5), torch.arange(6) % 3) for _ in range(3)])
    after = list(algorithm.project.parameters())
    assert all(not torch.equal(a, b) for a, b in zip(before, after, strict=True))


def test_without_other_environments_there_is_no_bottleneck_loss():
    values = make("CAD").update([(torch.randn(6, 5), torch.arange(6) % 3)])
    assert float(values["bn_loss"]) == 0
    assert float(values["total_loss"]) == float(values["clf_loss"])

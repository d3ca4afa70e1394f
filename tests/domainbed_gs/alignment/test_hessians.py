"""Inner products of Hessian diagonals against dense Hessians."""

from __future__ import annotations

import contextlib

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from torch import nn
from torch.autograd.functional import hessian
from torch.func import functional_call

from domainbed_gs.alignment import hessians
from domainbed_gs.alignment.hessians import (
    Layer,
    jackknife_error,
    residual_targets,
    without_bias,
)
from domainbed_gs.alignment.moments import GroupMoments
from domainbed_gs.alignment.network import MeasuredNetwork
from domainbed_gs.curvature.losses import SampleLoss
from domainbed_gs.curvature.network import ParameterVector


class Quadratic:
    """t^T H t / 2; implements `Loss`."""

    def __init__(self, hessian):
        self.hessian = hessian

    def add_hessian_product(self, parameters, vector, out, factor=1.0):
        out.add_(self.hessian @ vector, alpha=factor)


def symmetric(n, off_diagonal):
    matrix = torch.randn(n, n, dtype=torch.float64) * off_diagonal
    return matrix + matrix.T + torch.diag(torch.rand(n, dtype=torch.float64))


def hessian_grams(*args):
    return [without_bias(each) for each in hessians.hessian_grams(*args)]


def opener(losses, layers):
    """The blocks of quadratic losses over all parameters."""
    starts = dict(
        zip(
            [layer.name for layer in layers], np.cumsum([0] + [layer.count for layer in layers]), strict=False
        )
    )

    def open_block(block):
        start = starts[block[0].name]
        own = slice(start, start + sum(layer.count for layer in block))
        point = torch.zeros(own.stop - own.start, dtype=torch.float64)
        return contextlib.nullcontext(([Quadratic(loss.hessian[own, own]) for loss in losses], point))

    return open_block


def nothing(losses, *components):
    return [[torch.zeros(count, dtype=torch.float64) for _ in losses] for count in components]


def test_block_diagonal_hessians_are_exact_with_two_vectors():
    torch.manual_seed(0)
    losses = [Quadratic(torch.diag(torch.randn(6, dtype=torch.float64))) for _ in range(3)]
    layers = [Layer(str(i), 1, (True, i in (1, 2, 4))) for i in range(6)]
    fisher = [[torch.randn(n, dtype=torch.float64) for _ in losses] for n in (6, 3)]
    whole, part = hessian_grams(layers, opener(losses, layers), fisher, 2, (0,))
    residuals = torch.stack([loss.hessian.diagonal() for loss in losses])
    for found, ours, of_fisher in zip(
        (whole, part), (residuals, residuals[:, [1, 2, 4]]), fisher, strict=True
    ):
        expected = ours + torch.stack(of_fisher)
        np.testing.assert_allclose(found, expected @ expected.T, rtol=1e-12)


def test_estimates_have_no_bias():
    torch.manual_seed(0)
    losses = [Quadratic(symmetric(5, 0.3)) for _ in range(2)]
    diagonals = torch.stack([loss.hessian.diagonal() for loss in losses])
    layers = [Layer("0", 5, (True,))]
    zeros = nothing(losses, 5)
    draws = [hessian_grams(layers, opener(losses, layers), zeros, 2, (seed,))[0] for seed in range(400)]
    found = np.stack(draws)
    errors = found.std(0) / np.sqrt(len(found))
    assert (np.abs(found.mean(0) - (diagonals @ diagonals.T).numpy()) < 4 * errors).all()
    assert (errors < 0.25).all()


def test_the_jackknifes_error_of_a_mean_is_the_usual_one():
    """A statistic that is linear in the estimates: the inner product of one diagonal with a known one."""
    draws = np.random.default_rng(0).normal(size=9)
    known = np.zeros((9, 9, 2, 2))
    known[..., 0, 1] = draws[:, None]  # estimate i times a vector that is known exactly
    error = jackknife_error(known, lambda gram: gram[0, 1])
    assert error == pytest.approx(draws.std(ddof=1) / 3)
    assert np.isnan(jackknife_error(known[:2, :2], lambda gram: gram[0, 1]))


def make(activation):
    torch.manual_seed(0)
    network = nn.Sequential(nn.Linear(3, 4), activation, nn.Linear(4, 2), activation, nn.Linear(2, 3)).eval()
    vector = ParameterVector(network, [name for name, _ in network.named_parameters()])
    groups = [(torch.randn(5, 3), torch.randint(0, 3, (5,))) for _ in range(2)]
    layers = [Layer("0", 16, (True, False)), Layer("2", 10, (True, False)), Layer("4", 9, (True, True))]
    return network, vector, groups, layers


def dense(network, vector, x, y):
    def loss(values):
        return F.cross_entropy(functional_call(network, vector.views(values), (x,)), y)

    return hessian(loss, vector.values)


def measured(network, vector, groups, layers, probes):
    moments = GroupMoments(network, ["fisher"], [None, ["4"]])
    found = [moments.of(x, y, lambda: None) for x, y in groups]
    fisher = [[of_group[kind]["fisher"] for of_group in found] for kind in range(2)]
    targets = [residual_targets(network, x, y) for x, y in groups]

    whole = MeasuredNetwork(network, vector.names, frozenset(), shared=True)

    @contextlib.contextmanager
    def open_block(block):
        with whole.only([layer.name for layer in block]) as own:
            pairs = zip(groups, targets, strict=True)
            yield [SampleLoss(network, own, x, y) for (x, _), y in pairs], own.values

    return hessian_grams(layers, open_block, fisher, probes, (0,))


def test_the_hessian_is_the_fisher_information_and_the_residual(float64):
    """With the same random vectors, restricted to layers, as for the dense difference of the two."""
    network, vector, groups, layers = make(nn.GELU())
    residuals, fisher = [], []
    for x, y in groups:
        (found,) = GroupMoments(network, ["fisher"], [None]).of(x, y, lambda: None)
        fisher.append(found["fisher"])
        logits = network(x)
        p = logits.softmax(1).detach()
        jacobian = torch.stack(
            [
                torch.cat(
                    [g.flatten() for g in torch.autograd.grad(each, network.parameters(), retain_graph=True)]
                )
                for each in logits.flatten()
            ]
        ).reshape(5, 3, -1)
        of_logits = torch.diag_embed(p) - p[:, :, None] * p[:, None]
        information = torch.einsum("ncp,ncd,ndq->pq", jacobian, of_logits, jacobian) / 5
        torch.testing.assert_close(information.diagonal(), found["fisher"], rtol=1e-9, atol=1e-12)
        residuals.append(Quadratic(dense(network, vector, x, y) - information))
    ours = measured(network, vector, groups, layers, 3)
    of_classifier = [each[26:] for each in fisher]
    expected = hessian_grams(layers, opener(residuals, layers), [fisher, of_classifier], 3, (0,))
    np.testing.assert_allclose(ours, expected, rtol=1e-8, atol=1e-12)


def test_with_relu_the_hessians_diagonal_is_exact_and_that_of_the_fisher_information(float64):
    network, vector, groups, layers = make(nn.ReLU())
    diagonals = torch.stack([dense(network, vector, x, y).diagonal() for x, y in groups])
    whole, of_classifier = measured(network, vector, groups, layers, 2)
    np.testing.assert_allclose(whole, diagonals @ diagonals.T, rtol=1e-9, atol=1e-12)
    np.testing.assert_allclose(of_classifier, diagonals[:, 26:] @ diagonals[:, 26:].T, rtol=1e-9, atol=1e-12)
    for (x, y), expected in zip(groups, diagonals, strict=True):
        (found,) = GroupMoments(network, ["fisher"], [None]).of(x, y, lambda: None)
        torch.testing.assert_close(found["fisher"], expected, rtol=1e-9, atol=1e-12)


def test_layers_are_taken_in_few_blocks_that_do_not_mix_kinds(monkeypatch):
    monkeypatch.setattr(hessians, "MOST_BLOCKS", 3)
    layers = [Layer(str(i), 1, (True, i > 4)) for i in range(7)]
    assert [len(block) for block in hessians.blocks_of(layers)] == [3, 2, 2]

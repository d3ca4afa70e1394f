"""Algorithms on a small network, and what autograd says about the gradients."""

import copy

import pytest
import torch

from domainbed.algorithms import get_algorithm_class
from domainbed.hparams_registry import default_hparams

SHAPE = (3, 16, 16)


@pytest.fixture(scope="session")
def minibatches():
    """`minibatches(k, n, seed)`: k environments of n samples."""

    def draw(k=3, n=6, seed=3):
        generator = torch.Generator().manual_seed(seed)
        return [
            (torch.randn(n, *SHAPE, generator=generator), torch.randint(2, (n,), generator=generator))
            for _ in range(k)
        ]

    return draw


@pytest.fixture(scope="session")
def make():
    """`make(name, seed, k, **hparams)`: the algorithm for k environments."""

    def new(name, seed=0, k=3, **overrides):
        torch.manual_seed(seed)
        hparams = default_hparams(name, "Debug28") | {"featurizer": "small_cnn"} | overrides
        return get_algorithm_class(name)(SHAPE, 2, k, hparams)

    return new


@pytest.fixture(scope="session")
def gradients_of():
    """`gradients_of(algorithm, minibatches)`: (K, P), by autograd on a copy."""

    def compute(algorithm, batches):
        network = copy.deepcopy(algorithm.network)
        rows = []
        for x, y in batches:
            network.zero_grad()
            torch.nn.functional.cross_entropy(network(x), y).backward()
            rows.append(torch.cat([p.grad.flatten() for p in network.parameters()]))
        return torch.stack(rows)

    return compute


@pytest.fixture(scope="session")
def given_to_adam():
    """`given_to_adam(algorithm)`: the gradient (P,) of the last update."""
    return lambda algorithm: torch.cat([p.grad.flatten() for p in algorithm.network.parameters()])


@pytest.fixture(scope="session")
def weights_of():
    """`weights_of(algorithm)`: all parameters (P,)."""
    return lambda algorithm: torch.cat([p.detach().flatten() for p in algorithm.network.parameters()])

"""Gradients to combine, methods on small networks, and what autograd says about their gradients."""

import copy
import functools
import io

import numpy as np
import pytest
import torch
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays
from torch import nn

from domainbed.algorithms import get_algorithm_class
from domainbed.hparams import override
from domainbed.hparams_registry import default_hparams, options, switches, table

SHAPE = (3, 32, 32)

_defaults = functools.cache(functools.partial(default_hparams, dataset="Debug28"))


def build(name, shape, k, overrides):
    """The algorithm, with hyper-parameters that are validated as those of a run."""
    hparams = dict(_defaults(name))
    override(hparams, overrides, {**options(), **table(name), **switches(name)}, "Debug28")
    return get_algorithm_class(name)(shape, 2, k, hparams)


@pytest.fixture(scope="session")
def gradients():
    """`gradients(min_k, max_k, max_p)`: a strategy of (K, P) with zeros, ties, scales from 1e-3 to 1e3."""

    def strategy(min_k=1, max_k=5, max_p=12):
        values = st.one_of(
            st.integers(-3, 3).map(float), st.floats(-1e3, 1e3).filter(lambda v: v == 0 or abs(v) > 1e-3)
        )
        shapes = st.tuples(st.integers(min_k, max_k), st.integers(1, max_p))
        return shapes.flatmap(lambda shape: arrays(np.float64, shape, elements=values)).map(torch.from_numpy)

    return strategy


@pytest.fixture(scope="session")
def example():
    """The gradients (3, 8) of the golden vectors."""
    rows = [[3, -4, -1, 0, -2, 0, -2, 3], [1, 1, -2, 0, -1, 3, 1, -3], [2, 0, -1, 0, 4, -3, 2, -2]]
    return torch.tensor(rows, dtype=torch.float64)


@pytest.fixture(scope="session")
def gram():
    """Inner products (3, 3) of `example`."""
    return np.array([[43, -8, -11], [-8, 26, -1], [-11, -1, 38]], dtype=np.float64)


@pytest.fixture(scope="session")
def field(vectors):
    """Golden vectors of the methods of 2022 to 2025, most of them checked against the authors' code.

    `field["gradients"]` has three sets of gradients (3, 6): without conflict, with conflicts, of rank 2.
    """
    return vectors("field_gradients")


@pytest.fixture(scope="session")
def others():
    """`others(k)`: for each environment all others, in ascending order."""
    return lambda k: [[j for j in range(k) if j != i] for i in range(k)]


@pytest.fixture(scope="session")
def rule():
    """`rule(name, k, **hparams)`: a method whose `combine` or `weights` is to be called."""

    def new(name, k=3, **hparams):
        torch.manual_seed(0)
        return build(name, (2,), k, {"mlp_width": 2} | hparams)

    return new


@pytest.fixture(scope="session")
def pcgrad_weights(rule):
    """`pcgrad_weights(gram, orders)`: PCGrad's weights for given orders of the others."""
    method = rule("PCGrad")

    def weights(gram, orders):
        method.orders = lambda k, include_self: orders
        return method.weights(gram)

    return weights


@pytest.fixture(scope="session")
def gradvac_weights(rule):
    """`gradvac_weights(gram, orders, targets, beta)`: GradVac's weights (K,), and the new targets (K, K).

    `targets` are (K, K), or one number for all.
    """
    method = rule("GradVac")

    def weights(gram, orders, targets=0.0, beta=0.1):
        method.orders = lambda k: orders
        method.hparams["gradvac_beta"] = beta
        method.targets = torch.from_numpy(np.broadcast_to(targets, gram.shape).copy())
        before = method.targets.clone()
        given, found = method.targets, method.weights(gram)
        assert torch.equal(given, before)
        return found, method.targets.numpy()

    return weights


@pytest.fixture(scope="session")
def linear():
    """`linear(method, parameters)`: make a method descend linear losses of given parameters.

    The method's parameters are replaced, and it gets plain functions of them. Returns a function from
    gradients (K, P) to minibatches with these gradients; several samples with the same one, if the method
    cuts minibatches into parts.
    """

    def use(method, parameters):
        method.network = nn.ParameterList(parameters)
        method.loss_of = lambda x, y: (x @ torch.cat(list(method.network))).mean()
        method.optimizer = method.new_optimizer()
        samples = 2 * getattr(method, "PARTS", 1)

        def minibatches(gradients):
            if samples == 2:
                return [(row, row) for row in gradients]
            return [(row.expand(samples, -1), torch.zeros(samples)) for row in gradients]

        return minibatches

    return use


@pytest.fixture(scope="session")
def update_with(rule, linear):
    """`update_with(gradients, name, sizes, **hparams)`: one update of environments with given gradients.

    The gradients are (K, P). The method has parameters of these sizes, by default one of size P, whose values
    are 1. Returns the gradient (P,) that Adam got, and what the update returned.
    """

    def update(gradients, name, sizes=None, **hparams):
        method = rule(name, k=len(gradients), **hparams)
        ones = torch.ones_like(gradients[0])
        minibatches = linear(method, ones.split(sizes or len(ones)))
        returned = method.update(minibatches(gradients))
        return torch.cat([parameter.grad for parameter in method.network]), returned

    return update


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
    """`make(name, seed, k, **hparams)`: the algorithm for k environments, on a network of convolutions."""

    def new(name, seed=0, k=3, **hparams):
        torch.manual_seed(seed)
        return build(name, SHAPE, k, {"featurizer": "small_cnn"} | hparams)

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
def clear_signs():
    """`clear_signs(gradients)`: where signs of (K, P) agree, and where they conflict, by more than rounding.

    Two masks (P,). The components in neither have a gradient of nearly 0: its sign depends on the order of
    sums, which differs between processors.
    """

    def compare(gradients):
        rounding = 1e-12 * gradients.abs().max()
        positive, negative = gradients > rounding, gradients < -rounding
        agree = positive.all(0) | negative.all(0)
        conflict = positive.any(0) & negative.any(0)
        assert (agree | conflict).double().mean() > 0.95
        return agree, conflict

    return compare


@pytest.fixture(scope="session")
def given_to_adam():
    """`given_to_adam(algorithm)`: the gradient (P,) of the last update."""
    return lambda algorithm: torch.cat([p.grad.flatten() for p in algorithm.network.parameters()])


@pytest.fixture(scope="session")
def through_a_file():
    """`through_a_file(state)`: the state as read from a checkpoint, without executing code."""

    def read(state):
        buffer = io.BytesIO()
        torch.save(state, buffer)
        buffer.seek(0)
        return torch.load(buffer, weights_only=True)

    return read


@pytest.fixture(scope="session")
def weights_of():
    """`weights_of(algorithm)`: all parameters (P,)."""
    return lambda algorithm: torch.cat([p.detach().flatten() for p in algorithm.network.parameters()])

"""Gradients of environments from one joint pass or from one each: the same updates."""

import numpy as np
import pytest
import torch

from domainbed.algorithms import ALGORITHMS, get_algorithm_class
from domainbed.algorithms.environment_gradients import (
    ComponentwiseMethod,
    EnvironmentGradients,
    GramMethod,
)
from domainbed.errors import UsageError
from domainbed.hparams import override
from domainbed.hparams_registry import default_hparams

SHAPE = (3, 16, 16)
NAMES = [name for name in ALGORITHMS if issubclass(get_algorithm_class(name), EnvironmentGradients)]


def made(name, k=3, passes="auto", **overrides):
    torch.manual_seed(1)
    hparams = default_hparams(name, "Debug28") | {"featurizer": "small_cnn", "passes": passes} | overrides
    return get_algorithm_class(name)(SHAPE, 2, k, hparams)


def batches(k, seed, sizes=(5, 3, 4, 6)):
    draws = torch.Generator().manual_seed(seed)
    return [
        (torch.randn(n, *SHAPE, generator=draws), torch.randint(2, (n,), generator=draws))
        for n in (sizes * 2)[:k]
    ]


def updated(algorithm, k, n_updates=3):
    returned = []
    for step in range(n_updates):
        torch.manual_seed(step)
        values = algorithm.update(batches(k, step))
        returned.append({name: float(value) for name, value in values.items()})
    return returned, torch.cat([p.detach().flatten() for p in algorithm.network.parameters()])


@pytest.mark.parametrize("k", [1, 2, 4])
@pytest.mark.parametrize("name", NAMES)
def test_one_pass_or_one_for_each_environment_train_alike(float64, name, k):
    options = {"dropout": 0.3} if "dropout" in made(name).hparams else {}
    together, weights = updated(made(name, k, passes="joint", **options), k)
    apart, expected = updated(made(name, k, passes="separate", **options), k)
    for found, wanted in zip(together, apart, strict=True):
        assert found == pytest.approx(wanted, rel=1e-6, abs=1e-9, nan_ok=True)
    torch.testing.assert_close(weights, expected, rtol=1e-6, atol=1e-9)


def test_live_batch_norm_gets_a_pass_for_each_environment():
    """And random numbers, and running statistics, as if that had been asked for."""
    # Compiling the rule, as for networks of this size, would take most of the test's time.
    options = {"featurizer": "resnet18", "pretrained": False, "resnet_dropout": 0.5, "rules": "plain"}
    results = []
    for passes in ("auto", "separate"):
        torch.manual_seed(0)
        hparams = default_hparams("AgrSum", "PACS") | options | {"passes": passes}
        algorithm = get_algorithm_class("AgrSum")((3, 32, 32), 2, 2, hparams)
        draws = torch.Generator().manual_seed(0)
        minibatches = [(torch.randn(2, 3, 32, 32, generator=draws), torch.tensor([0, 1])) for _ in range(2)]
        for step in range(2):
            torch.manual_seed(step)
            algorithm.update(minibatches)
        results.append(algorithm.state_dict())
    assert all(torch.equal(value, results[1][name]) for name, value in results[0].items())


def test_a_users_own_loss_is_asked_for_environment_by_environment():
    calls = []

    class Own(get_algorithm_class("AgrSum")):
        def loss_of(self, x, y):
            calls.append(len(x))
            return super().loss_of(x, y) * 2

    torch.manual_seed(0)
    Own(SHAPE, 2, 3, default_hparams("AgrSum", "Debug28") | {"featurizer": "small_cnn"}).update(batches(3, 0))
    assert calls == [5, 3, 4]


def test_the_switch_takes_auto_joint_or_separate():
    with pytest.raises(
        UsageError, match="hyper-parameter passes must be one of auto, joint, separate, not 'one'"
    ):
        override({}, {"passes": "one"}, get_algorithm_class("ANDMask").switches_table(), "Debug28")


class Median(ComponentwiseMethod):
    """A rule of a user's own: the median of the gradients."""

    def combine(self, gradients):
        return torch.stack(list(gradients)).median(0).values


class FirstOnly(GramMethod):
    """A rule of a user's own: the first environment's gradient."""

    def weights(self, gram):
        return np.eye(len(gram))[0]


@pytest.mark.parametrize("passes", ["joint", "separate"])
@pytest.mark.parametrize(
    ("method", "expected"), [(Median, lambda g: g.median(0).values), (FirstOnly, lambda g: g[0])]
)
def test_a_users_own_rule_is_one_method(float64, method, expected, passes):
    torch.manual_seed(0)
    hparams = default_hparams("ERM", "Debug28") | {"featurizer": "small_cnn", "passes": passes}
    own = method(SHAPE, 2, 3, hparams)
    parameters = list(own.network.parameters())
    gradients = torch.stack(
        [
            torch.cat([part.flatten() for part in torch.autograd.grad(own.loss_of(x, y), parameters)])
            for x, y in batches(3, 0)
        ]
    )
    assert set(own.update(batches(3, 0))) == {"loss"}
    found = torch.cat([parameter.grad.flatten() for parameter in parameters])
    torch.testing.assert_close(found, expected(gradients), rtol=1e-9, atol=1e-12)
    assert own.DISTRIBUTED

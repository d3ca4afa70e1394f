"""Rules that weigh the environments by the values of their losses."""

import pytest
import torch

from domainbed.algorithms import get_algorithm_class
from domainbed.algorithms.loss_weights import LossWeightsMethod
from domainbed.hparams_registry import default_hparams

SHAPE = (3, 16, 16)

pytestmark = pytest.mark.usefixtures("float64")


class Mean(LossWeightsMethod):
    """A rule of a user's own."""

    def scalarize(self, losses):
        return losses.mean()


class Squares(LossWeightsMethod):
    """Half the sum of squares: each environment's weight is its loss."""

    def scalarize(self, losses):
        return losses.square().sum() / 2


def made(method, **overrides):
    torch.manual_seed(0)
    return method(SHAPE, 2, 3, default_hparams("ERM", "Debug28") | {"featurizer": "small_cnn"} | overrides)


def batches(n=5):
    draws = torch.Generator().manual_seed(0)
    return [
        (torch.randn(n, *SHAPE, generator=draws), torch.randint(2, (n,), generator=draws)) for _ in range(3)
    ]


def given_to_adam(algorithm):
    return torch.cat([parameter.grad.flatten() for parameter in algorithm.network.parameters()])


def test_the_mean_of_the_losses_is_erm():
    erm, own = made(get_algorithm_class("ERM")), made(Mean)
    expected = erm.update(batches())
    returned = own.update(batches())
    torch.testing.assert_close(given_to_adam(own), given_to_adam(erm))
    assert returned["loss"] == pytest.approx(expected["loss"])
    assert returned["objective"] == pytest.approx(expected["loss"])
    assert returned["largest_weight"] == pytest.approx(1 / 3)
    assert own.DISTRIBUTED


def test_weights_are_the_derivatives_by_the_losses():
    own = made(Squares)
    losses = torch.stack([torch.nn.functional.cross_entropy(own.predict(x), y) for x, y in batches()])
    expected = torch.autograd.grad((losses.detach() * losses).sum(), own.trained_parameters())
    returned = own.update(batches())
    torch.testing.assert_close(given_to_adam(own), torch.cat([part.flatten() for part in expected]))
    assert returned["loss"] == pytest.approx(losses.mean().item())
    assert returned["largest_weight"] == pytest.approx((losses.max() / losses.sum()).item())

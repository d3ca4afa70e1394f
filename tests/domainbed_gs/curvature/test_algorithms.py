"""Gradients and Hessian-vector products of every algorithm's trained model."""

import pytest
import torch
import torch.nn.functional as F

from domainbed.algorithms import REGISTRY, get_algorithm_class
from domainbed.errors import UsageError
from domainbed.hparams_registry import default_hparams
from domainbed.seeds import Purpose, counter_seed
from domainbed_gs.curvature.layerwise import is_separable
from domainbed_gs.curvature.losses import SampleLoss, gradient, hessian_product
from domainbed_gs.curvature.network import Logits, ParameterVector, trained_names

UNTRAINED = ("CLIPZeroShot",)
FEW = ("ERM", "Fishr", "DGSAM", "ERMPlusPlus", "MTL", "ARM", "DANN")
"""Among them: an average of weights that predicts, draws in `predict`, inputs that depend on a minibatch."""


def trained(name):
    """The logits of a model after one update, in float64, and samples."""
    torch.manual_seed(0)
    hparams = default_hparams(name, "Debug28") | {"featurizer": "small_cnn"}
    algorithm = get_algorithm_class(name)((3, 28, 28), 2, 3, hparams)
    x, y = torch.randn(6, 3, 28, 28), torch.tensor([0, 1] * 3)
    if name not in UNTRAINED:
        algorithm.update([(x, y)] * 3)
    return Logits(algorithm.eval().double()), x.double(), y


def twice_backward(parameters, x, y, vector):
    """Value, gradient and Hessian-vector product by two plain backward passes."""
    torch.manual_seed(counter_seed(Purpose.PREDICTION, 0))
    leaf = parameters.values.clone().requires_grad_()
    loss = F.cross_entropy(parameters.outputs(parameters.views(leaf), x), y)
    (slope,) = torch.autograd.grad(loss, leaf, create_graph=True)
    (product,) = torch.autograd.grad(slope @ vector, leaf)
    return loss.item(), slope.detach(), product


def check(name):
    network, x, y = trained(name)
    parameters = ParameterVector(network, trained_names(network, x[:2]))
    at, by_layers = parameters.values, is_separable(network, parameters.names, x[:1], y[:1])
    vector = torch.randn(len(parameters), dtype=at.dtype)
    value, slope, product = twice_backward(parameters, x, y, vector)
    for way in {False, by_layers}:
        loss = SampleLoss(network, parameters, x, y, by_layers=way)
        assert loss.value(at) == pytest.approx(value, rel=1e-12)
        torch.testing.assert_close(gradient(loss, at), slope, rtol=1e-9, atol=1e-11)
        torch.testing.assert_close(hessian_product(loss, at, vector), product, rtol=1e-8, atol=1e-9)


@pytest.mark.parametrize("name", FEW)
def test_gradients_and_products_of_a_trained_model_are_those_of_two_backward_passes(name):
    check(name)


@pytest.mark.slow
@pytest.mark.parametrize("name", [name for name in REGISTRY if name not in (*FEW, *UNTRAINED)])
def test_gradients_and_products_of_every_algorithm_are_those_of_two_backward_passes(name):
    check(name)


def test_an_algorithm_without_trained_parameters_is_refused_in_one_line():
    network, x, _ = trained("ERM")
    network.requires_grad_(False)
    with pytest.raises(UsageError, match="depend on no trained parameter") as caught:
        trained_names(network, x[:2])
    assert "\n" not in str(caught.value)


def test_the_state_of_the_generators_stays():
    network, x, y = trained("MTL")
    parameters = ParameterVector(network, trained_names(network, x[:2]))
    before = torch.get_rng_state()
    SampleLoss(network, parameters, x, y).value(parameters.values)
    assert torch.equal(torch.get_rng_state(), before)

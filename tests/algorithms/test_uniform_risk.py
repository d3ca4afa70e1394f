"""URM: the activation, the discriminator, and errors."""

import pytest
import torch
from torch import nn

from domainbed.algorithms import get_algorithm_class
from domainbed.algorithms.uniform_risk import discriminator
from domainbed.errors import UsageError
from domainbed.hparams import override
from domainbed.hparams_registry import default_hparams, table
from domainbed.networks import FEATURIZERS


def make(**overrides):
    torch.manual_seed(0)
    hparams = default_hparams("URM", "Debug28") | {"mlp_width": 8} | overrides
    return get_algorithm_class("URM")((5,), 3, 2, hparams)


def minibatches():
    torch.manual_seed(1)
    return [(torch.randn(n, 5), torch.arange(n) % 3) for n in (6, 4)]


class Bare(nn.Module):
    n_outputs = 5

    def forward(self, x):
        return x


@pytest.mark.parametrize(
    ("overrides", "message"),
    [
        (
            {"urm_generator_output": "identity"},
            "urm_generator_output must be one of tanh, sigmoid, relu, not 'identity'",
        ),
        (
            {"urm_discriminator_optimizer": "lion"},
            "urm_discriminator_optimizer must be one of adam, sgd, not 'lion'",
        ),
    ],
)
def test_unknown_activations_and_optimizers_are_rejected(overrides, message):
    with pytest.raises(UsageError, match=f"hyper-parameter {message}"):
        override({}, overrides, table("URM"), "Debug28")


def test_featurizers_without_an_activation_are_rejected(monkeypatch):
    monkeypatch.setitem(FEATURIZERS, "bare", lambda input_shape, hparams: Bare())
    message = "the featurizer's module `activation`, which Bare does not have; choose another"
    with pytest.raises(UsageError, match=message) as error:
        make(featurizer="bare")
    assert "\n" not in str(error.value)


@pytest.mark.parametrize(
    ("output", "low", "high"), [("tanh", -1, 1), ("sigmoid", 0, 1), ("relu", 0, float("inf"))]
)
def test_the_activation_bounds_the_features(output, low, high):
    algorithm = make(urm_generator_output=output)
    features = algorithm.featurizer(torch.randn(50, 5) * 100)
    assert features.min() >= low
    assert features.max() <= high
    assert features.std() > 0


@pytest.mark.parametrize(("output", "low"), [("tanh", -1), ("sigmoid", 0), ("relu", 0)])
def test_the_discriminator_sees_noise_of_the_features_range(output, low):
    algorithm = make(urm_generator_output=output)
    seen = []
    algorithm.discriminator.register_forward_pre_hook(lambda module, inputs: seen.append(inputs[0].detach()))
    algorithm.update(minibatches())
    features, noise, features_again = seen
    assert noise.shape == features.shape
    assert low <= noise.min() < noise.max() <= 1
    assert (noise.min() < -0.5) == (low < 0)
    assert torch.equal(features, features_again)  # from before the step of the network


@pytest.mark.parametrize("optimizer", ["adam", "sgd"])
@pytest.mark.parametrize("smoothing", [0, 0.2])
def test_noise_is_drawn_and_with_smoothing_targets_too(optimizer, smoothing):
    algorithm = make(urm_discriminator_optimizer=optimizer, urm_discriminator_label_smoothing=smoothing)
    torch.manual_seed(9)
    algorithm.update(minibatches()[:1])
    after = torch.rand(1)
    torch.manual_seed(1)
    torch.randn(6, 5)  # as minibatches() draws after its seed
    torch.randn(4, 5)
    torch.rand(6, 8)
    if smoothing:
        torch.rand(6, 1)
        torch.rand(6, 1)
    assert torch.equal(torch.rand(1), after)


def test_the_network_and_the_discriminator_have_their_own_optimizers():
    """With a learning rate of nearly 0, one stays unchanged while the other is trained."""

    def changed(**overrides):
        algorithm = make(**overrides)
        before = {name: parameter.clone() for name, parameter in algorithm.named_parameters()}
        algorithm.update(minibatches())
        after = dict(algorithm.named_parameters())
        return {
            name.split(".")[0] for name in before if not torch.allclose(before[name], after[name], atol=1e-9)
        }

    assert changed(urm_discriminator_lr=1e-20) == {"featurizer", "classifier"}
    assert changed(lr=1e-20) == {"discriminator"}


def test_nothing_is_printed(capsys):
    make().update(minibatches())
    assert capsys.readouterr() == ("", "")


@pytest.mark.parametrize("hidden", [1, 3])
def test_the_discriminator_has_the_given_number_of_layers(hidden):
    network = discriminator(8, hidden)
    layers = [name for name, child in network.named_children() if isinstance(child, nn.Linear)]
    assert layers == [*(f"dense{i}" for i in range(1, hidden + 2)), "output"]
    assert network(torch.randn(4, 8)).shape == (4, 1)


def test_state_dicts_have_upstreams_keys():
    keys = make().state_dict().keys()
    parts = {"featurizer", "classifier", "network", "discriminator"}
    assert {key.split(".")[0] for key in keys} == parts
    assert {"discriminator.dense1.weight", "discriminator.dense2.bias", "discriminator.output.weight"} <= keys

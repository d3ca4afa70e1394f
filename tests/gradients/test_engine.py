"""Which way the engine makes gradients, and what a switch forces."""

import pytest
import torch
from torch import nn
from torch.nn.utils import parameters_to_vector

from domainbed.algorithms import REGISTRY, get_algorithm_class
from domainbed.algorithms.environment_gradients import EnvironmentGradients
from domainbed.errors import UsageError
from domainbed.gradients import engine
from domainbed.hparams_registry import default_hparams

MLP, CNN = {"featurizer": "mlp", "mlp_width": 8}, {"featurizer": "small_cnn"}


def make(featurizer, name="AgrSum", **overrides):
    torch.manual_seed(0)
    hparams = default_hparams(name, "Debug28") | featurizer | overrides
    return get_algorithm_class(name)((3, 16, 16), 2, 2, hparams)


@pytest.fixture
def ways(monkeypatch):
    """Names of the functions that made gradients."""
    called = []

    def spied(name):
        run = getattr(engine, name)

        def spy(*args, **kwargs):
            called.append(name)
            return run(*args, **kwargs)

        return spy

    for name in ("joint_pass", "separate_passes"):
        monkeypatch.setattr(engine, name, spied(name))
    return called


def update(algorithm):
    algorithm.update([(torch.randn(4, 3, 16, 16), torch.tensor([0, 1, 1, 0])) for _ in range(2)])


@pytest.mark.parametrize(
    ("featurizer", "passes", "way"),
    [
        (MLP, "auto", "joint_pass"),
        (CNN, "auto", "separate_passes"),
        (MLP, "separate", "separate_passes"),
        (CNN, "joint", "joint_pass"),
    ],
)
@pytest.mark.parametrize("name", ["AgrSum", "PCGrad", "ANDMask"])
def test_auto_takes_one_pass_where_linear_layers_hold_most_parameters(ways, featurizer, passes, way, name):
    algorithm = make(featurizer, name, passes=passes)
    update(algorithm)
    update(algorithm)
    assert ways == [way, way]


class Scaled(nn.Module):
    """A classifier with a parameter beside those of its layer."""

    def __init__(self, layer):
        super().__init__()
        self.layer, self.scale = layer, nn.Parameter(torch.ones(()))

    def forward(self, x):
        return self.layer(x) * self.scale


def with_scaled_classifier(**overrides):
    algorithm = make(MLP, **overrides)
    algorithm.classifier = Scaled(algorithm.classifier)
    algorithm.network[1] = algorithm.classifier
    return algorithm


def test_where_a_joint_pass_is_impossible_auto_takes_separate_passes_from_then_on(ways):
    algorithm = with_scaled_classifier()
    update(algorithm)
    update(algorithm)
    assert ways == ["joint_pass", "separate_passes", "separate_passes"]
    assert algorithm.classifier.scale.grad


def test_where_a_joint_pass_is_impossible_the_switch_says_why():
    with pytest.raises(UsageError, match=r'has parameters beside .*; give "passes": "separate"'):
        update(with_scaled_classifier(passes="joint"))


METHODS = [name for name in REGISTRY if issubclass(get_algorithm_class(name), EnvironmentGradients)]


@pytest.fixture
def nan_buffers(monkeypatch):
    """What an update does not write of the combined gradient's memory is NaN."""
    buffer = engine.GradientEngine._buffer
    monkeypatch.setattr(engine.GradientEngine, "_buffer", lambda *args: buffer(*args).fill_(torch.nan))


class Sometimes(nn.Module):
    """A classifier with a second layer that not every update uses."""

    def __init__(self, layer):
        super().__init__()
        self.layer, self.second, self.in_use = layer, nn.Linear(2, 2), True

    def forward(self, x):
        logits = self.layer(x)
        return self.second(logits) if self.in_use else logits


@pytest.mark.parametrize("passes", ["joint", "separate"])
@pytest.mark.parametrize("name", METHODS)
def test_parameters_that_an_update_does_not_use_have_a_gradient_of_zero(nan_buffers, ways, name, passes):
    algorithm = make(MLP, name, passes=passes)
    algorithm.network[1] = algorithm.classifier = Sometimes(algorithm.classifier)
    algorithm.optimizer = algorithm.new_optimizer()
    update(algorithm)
    assert parameters_to_vector([each.grad for each in algorithm.network.parameters()]).isfinite().all()
    algorithm.classifier.in_use = False
    update(algorithm)
    assert parameters_to_vector(algorithm.network.parameters()).isfinite().all()
    if name in ("AgrRand", "GGAL"):  # noise where there is no gradient
        return
    assert not any(each.grad.any() for each in algorithm.classifier.second.parameters())
    assert any(each.grad.any() for each in algorithm.classifier.layer.parameters())
    if name != "Aggregation":
        assert ways == [f"{passes}_pass{'es' * (passes == 'separate')}"] * 2

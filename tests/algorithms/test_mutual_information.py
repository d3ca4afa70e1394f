"""MIRO: golden losses and updates, its identities, and the layers that it looks at."""

import copy
import math

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn

from domainbed import networks
from domainbed.algorithms.erm import ERM
from domainbed.algorithms.mutual_information import MIRO, _regularisation
from domainbed.errors import UsageError
from domainbed.hparams_registry import default_hparams
from domainbed.networks.block_outputs import replaced
from domainbed.networks.stages import Stage, StagedFeaturizer, in_sequence

pytestmark = pytest.mark.usefixtures("float64")


class Tiny(StagedFeaturizer):
    """A convolution of one pixel and a ReLU; the features are means over positions."""

    def __init__(self):
        super().__init__()
        self.conv, self.relu, self.activation = nn.Conv2d(2, 3, 1), nn.ReLU(), nn.Identity()
        self.n_outputs = 3

    def stages(self):
        pooled = in_sequence([self.relu, nn.AdaptiveAvgPool2d(1), nn.Flatten()])
        return [Stage("conv", self.conv, [self.conv]), Stage("relu", pooled, [self.relu])]


def make(shape=(3, 28, 28), classes=2, **overrides):
    torch.manual_seed(0)
    hparams = default_hparams("MIRO", "Debug28") | {"featurizer": "small_cnn"} | overrides
    return MIRO(shape, classes, 2, hparams)


def batches(shape=(3, 28, 28)):
    return [(torch.randn(n, *shape), torch.randint(2, (n,))) for n in (4, 3)]


def test_golden_regularisation(vectors):
    total = 0
    for case in vectors("field_networks")["miro_loss"]["layers"]:
        b = torch.tensor(case["b"], requires_grad=True)
        features = torch.tensor(case["features"], requires_grad=True)
        value = _regularisation(features, torch.tensor(case["reference"]), b)
        value.backward()
        assert value.item() == pytest.approx(case["value"], rel=1e-12)
        np.testing.assert_allclose(features.grad, case["grad_features"], atol=1e-12)
        np.testing.assert_allclose(b.grad, case["grad_b"], atol=1e-12)
        total += value.item()
    assert total == pytest.approx(vectors("field_networks")["miro_loss"]["sum_of_values"])


def test_golden_updates(vectors, monkeypatch):
    golden = vectors("field_networks")["miro_update"]
    monkeypatch.setattr(networks, "Featurizer", lambda shape, hparams: Tiny())
    values = {"miro_lambda": golden["hparams"]["ld"], "miro_lr_mult": golden["hparams"]["lr_mult"]}
    values |= {name: golden["hparams"][name] for name in ("lr", "weight_decay")}
    algorithm = make((2, 2, 2), **values)
    weights = [
        algorithm.featurizer.conv.weight,
        algorithm.featurizer.conv.bias,
        *algorithm.classifier.parameters(),
    ]
    for parameter, name in zip(weights, ("conv_w", "conv_b", "lin_w", "lin_b"), strict=True):
        parameter.data = torch.tensor(golden["init"][name])
    algorithm.reference.load_state_dict(algorithm.featurizer.state_dict())
    minibatches = [(torch.tensor(each["x"]), torch.tensor(each["y"])) for each in golden["minibatches"]]
    for expected in golden["logs"]:
        returned = algorithm.update(minibatches)
        assert returned["loss"] == pytest.approx(expected["loss"], rel=1e-9)
        assert returned["reg_loss"] == pytest.approx(expected["reg_loss"], rel=1e-9)
    for parameter, name in zip(weights, golden["after"], strict=True):
        np.testing.assert_allclose(parameter.detach(), golden["after"][name], atol=1e-9)
    for parameter, expected in zip(algorithm.variance_parameters, golden["b_after"], strict=True):
        np.testing.assert_allclose(parameter.detach(), expected, atol=1e-9)


@given(st.integers(1, 4), st.integers(1, 3), st.integers(1, 3), st.integers(0, 2**32))
def test_nothing_pulls_at_features_that_are_the_references(n, channels, side, seed):
    torch.manual_seed(seed)
    features = torch.randn(n, channels, side, side, requires_grad=True)
    b = torch.randn(1, channels, 1, 1)
    value = _regularisation(features, features.detach(), b)
    variance = F.softplus(b) + 1e-5
    torch.testing.assert_close(value, variance.log().mean() / 2)
    (slope,) = torch.autograd.grad(value, features)
    assert not slope.any()


def test_at_the_start_nothing_pulls_at_the_features(vectors):
    algorithm = make()
    returned = algorithm.update(batches())
    layers = len(algorithm.variance_parameters)
    assert returned["reg_loss"] == pytest.approx(layers * math.log(0.1) / 2)
    start = make().variance_parameters[0].flatten()[0].item()
    assert start == pytest.approx(vectors("field_networks")["miro_loss"]["b_initial"], rel=1e-12)


@given(st.integers(1, 4), st.integers(1, 5), st.integers(0, 2**32))
def test_with_a_variance_of_one_it_is_half_the_mean_squared_distance(n, side, seed):
    torch.manual_seed(seed)
    a, b = torch.randn(n, 3, side, side), torch.randn(n, 3, side, side)
    one = torch.full((1, 3, 1, 1), math.log(math.expm1(1 - 1e-5)))
    torch.testing.assert_close(_regularisation(a, b, one), (a - b).square().mean() / 2)


@settings(max_examples=10)
@given(st.integers(0, 2**32), st.sampled_from([0.0, 0.1]))
def test_without_a_weight_the_network_is_erms_and_the_reference_never_changes(seed, weight_decay):
    """Variances change by weight decay alone."""
    mlp = {"featurizer": "mlp", "mlp_width": 3, "weight_decay": weight_decay}
    algorithm = make((4,), miro_lambda=0.0, **mlp)
    torch.manual_seed(0)
    erm = ERM((4,), 2, 2, default_hparams("ERM", "Debug28") | mlp)
    reference = copy.deepcopy(algorithm.reference.state_dict())
    variances = [b.clone() for b in algorithm.variance_parameters]
    for step in range(2):
        for each in (algorithm, erm):
            torch.manual_seed(seed + step)
            each.update(batches((4,)))
    for a, b in zip(algorithm.network.parameters(), erm.network.parameters(), strict=True):
        torch.testing.assert_close(a, b)
    for name, value in algorithm.reference.state_dict().items():
        assert torch.equal(value, reference[name])
    first = next(algorithm.featurizer.parameters()), next(algorithm.reference.parameters())
    assert not torch.equal(*first)
    for before, after in zip(variances, algorithm.variance_parameters, strict=True):
        assert (after.abs() < before.abs()).all() if weight_decay else torch.equal(before, after)


def test_the_reference_stays_in_evaluation_mode():
    algorithm = make(featurizer="wide_resnet", shape=(3, 32, 32))
    algorithm.train()
    assert algorithm.training
    assert algorithm.featurizer.bn1.training
    assert not any(module.training for module in algorithm.reference.modules())


def test_variances_have_a_learning_rate_of_their_own():
    algorithm = make(lr=1e-3, weight_decay=0.25)
    network, variances = algorithm.optimizer.param_groups
    assert (network["lr"], variances["lr"]) == (1e-3, 1e-2)
    assert network["weight_decay"] == variances["weight_decay"] == 0.25


@pytest.mark.parametrize(
    ("featurizer", "size", "shapes"),
    [
        ("resnet18", 64, [(64, 16, 16), (64, 16, 16), (128, 8, 8), (256, 4, 4), (512, 2, 2)]),
        ("small_cnn", 28, [(32, 7, 7), (64, 4, 4), (128, 2, 2)]),
        ("timm:test_vit", 160, None),
        ("timm:test_resnet", 160, None),
        ("mlp", 8, None),
    ],
)
def test_layers_are_the_ends_of_blocks_and_are_not_overwritten(featurizer, size, shapes):
    """An output that a later layer changes in place has another version at the end."""
    hparams = {"featurizer": featurizer, "pretrained": False, "resnet50_augmix": False}
    algorithm = make((3, size, size), **hparams)
    versions, outputs = [], []

    def record(output):
        versions.append(output._version)
        outputs.append(output)

    with replaced(algorithm._layers(algorithm.featurizer), record):
        algorithm.featurizer(torch.randn(2, 3, size, size))
    assert [output._version for output in outputs] == versions
    if shapes:
        assert [tuple(output.shape[1:]) for output in outputs] == shapes


def test_frozen_blocks_are_left_out_and_a_featurizer_without_trained_ones_is_refused():
    assert len(make(freeze="conv1").variance_parameters) == 2
    assert len(make(miro_layers="block").variance_parameters) == 2
    with pytest.raises(
        UsageError, match=r"MIRO looks at the outputs of a featurizer's blocks.*all blocks are frozen"
    ):
        make(freeze="all")

"""The contract of a featurizer, for every registered one."""

import copy
import pickle
from functools import cache

import pytest
import torch
from torch import nn

from domainbed.algorithms import Algorithm
from domainbed.errors import UsageError
from domainbed.hparams_registry import default_hparams
from domainbed.networks import FEATURIZERS, Featurizer

SHAPES = {"mlp": (9,), "mnist_cnn": (2, 28, 28), "wide_resnet": (2, 32, 32), "dinov2": (3, 28, 42)}
SHAPE = (2, 64, 64)
LARGE = {"dinov2", "alexnet", "resnet", "resnet50"}  # pickling these is slow


@cache
def build(name):
    if name in {"resnet", "dinov2", "efficientnet_lite0"}:
        pytest.importorskip("timm")
    torch.manual_seed(0)
    hparams = default_hparams("ERM", "Debug28") | {"featurizer": name, "pretrained": False}
    hparams["clip_model"] = "tiny"
    return Featurizer(SHAPES.get(name, SHAPE), hparams)


@pytest.fixture(params=list(FEATURIZERS))
def named(request):
    featurizer = build(request.param).train()
    torch.manual_seed(1)
    return request.param, featurizer, torch.randn(3, *SHAPES.get(request.param, SHAPE))


def test_features_in_both_modes_and_a_gradient_for_every_parameter(named):
    _, featurizer, x = named
    trained = featurizer(x)
    assert trained.shape == (3, featurizer.n_outputs)
    trained.square().sum().backward()
    for name, parameter in featurizer.named_parameters():
        assert parameter.grad is not None, name
        assert parameter.grad.isfinite().all(), name
    featurizer.zero_grad()
    assert featurizer.eval() is featurizer
    with torch.no_grad():
        features = featurizer(x)
        assert features.shape == (3, featurizer.n_outputs)
        # In evaluation mode, the features of a sample do not depend on the others.
        torch.testing.assert_close(featurizer(x[1:2]), features[1:2], rtol=1e-3, atol=1e-4)
    assert featurizer.train() is featurizer


def test_copies_compute_the_same_features(named):
    name, featurizer, x = named
    featurizer.eval()
    copies = [copy.deepcopy(featurizer)]
    if name not in LARGE:
        copies.append(pickle.loads(pickle.dumps(featurizer)))
    with torch.no_grad():
        for other in copies:
            assert torch.equal(other(x), featurizer(x))
            assert not {id(p) for p in other.parameters()} & {id(p) for p in featurizer.parameters()}


def test_activation_is_applied_to_the_features(named):
    _, featurizer, x = named
    assert isinstance(featurizer.activation, nn.Identity)
    featurizer.eval()
    with torch.no_grad():
        plain = featurizer(x)
        featurizer.activation = nn.Tanh()
        try:
            assert torch.equal(featurizer(x), plain.tanh())
        finally:
            featurizer.activation = nn.Identity()


def test_invalid_shapes_are_rejected(named):
    name, _, _ = named
    wrong = () if name == "mlp" else (9,)
    with pytest.raises(UsageError, match=r"takes .*, not inputs of shape"):
        Featurizer(wrong, default_hparams("ERM", "Debug28") | {"featurizer": name, "pretrained": False})


@pytest.mark.parametrize("name", ["mnist_cnn", "small_cnn"])
def test_features_of_a_sample_do_not_depend_on_its_minibatch(name):
    featurizer, shape = build(name).train(), SHAPES.get(name, SHAPE)
    x = torch.randn(4, *shape)
    apart = torch.cat([featurizer(x[:1]), featurizer(x[1:])])
    torch.testing.assert_close(featurizer(x), apart, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("side", [16, 17, 96])
def test_small_cnn_takes_images_of_16_pixels_or_more(side):
    assert FEATURIZERS["small_cnn"]((3, side, side), {})(torch.randn(2, 3, side, side)).shape == (2, 128)
    with pytest.raises(UsageError, match="16 pixels or more"):
        FEATURIZERS["small_cnn"]((3, 15, side), {})


def test_hyper_parameters_of_resnets_and_transformers_are_in_the_common_table():
    needed = {"resnet18", "resnet50_augmix", "freeze_bn", "resnet_dropout", "vit_dropout", "vit_attn_tune"}
    assert needed <= set(Algorithm.hparams_table())

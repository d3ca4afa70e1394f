"""Stages of featurizers, and networks whose first stages are frozen."""

import copy
import io

import pytest
import torch
from torch import nn

from domainbed.errors import UsageError, describe
from domainbed.hparams_registry import default_hparams
from domainbed.networks import FEATURIZERS, Featurizer, FeaturizerModule, clip
from domainbed.networks.stages import StagedFeaturizer, changing_buffers, frozen_names
from domainbed.networks.timm_stages import chain_of, is_chain

SHAPES = {"mlp": (9,), "mnist_cnn": (2, 28, 28), "wide_resnet": (2, 32, 32), "dinov2": (3, 28, 42)}
MIDDLE = {
    "mlp": "input",
    "mnist_cnn": "conv2",
    "wide_resnet": "layer2",
    "small_cnn": "conv1",
    "resnet18": "layer3",
    "efficientnet_lite0": "blocks.4",
    "alexnet": "conv4",
    "dinov2": "blocks.7",
    "clip": "blocks.0",
    "timm:test_vit": "blocks.2",
    "timm:test_convnext": "stages.1",
}
EVERY = {**MIDDLE, "resnet": "stem", "timm:test_resnet": "layer2", "timm:test_nfnet": "all"}


LARGE = ("dinov2", "resnet", "alexnet")  # building these takes seconds


def each(names):
    """One test for each of `names`; of large networks, slow ones."""
    return [pytest.param(name, marks=[pytest.mark.slow] * (name in LARGE)) for name in names]


def build(name, **hparams):
    if name.startswith("timm:") or name in {"resnet", "efficientnet_lite0", "dinov2"}:
        pytest.importorskip("timm")
    torch.manual_seed(0)
    given = default_hparams("ERM", "Debug28") | {"featurizer": name, "pretrained": False} | hparams
    given["clip_model"] = "tiny"
    return Featurizer(SHAPES.get(name, (2, 64, 64)), given), torch.randn(3, *SHAPES.get(name, (2, 64, 64)))


def test_every_featurizer_with_stages_is_tested_here():
    assert {name for name in FEATURIZERS if name != "resnet50"} <= EVERY.keys()


@pytest.mark.parametrize("name", each(EVERY))
def test_frozen_stages_change_no_number_and_their_outputs_can_be_inputs(name):
    plain, x = build(name)
    frozen, _ = build(name, freeze=EVERY[name])
    assert plain.state_dict().keys() == frozen.state_dict().keys()
    frozen.load_state_dict(plain.state_dict())
    with torch.no_grad():
        expected = plain.eval()(x)
        torch.testing.assert_close(frozen.eval()(x), expected, rtol=1e-3, atol=1e-4)
        outputs = frozen.frozen_outputs(x)
        before = outputs.clone()
        torch.testing.assert_close(frozen(outputs), expected, rtol=1e-3, atol=1e-4)
        assert torch.equal(outputs, before)
    if name != "mlp":
        assert frozen.frozen_shape == outputs.shape[1:] != x.shape[1:]


@pytest.mark.parametrize("name", each(MIDDLE))
def test_the_last_stages_are_trained_and_the_others_have_no_parameters(name):
    plain, x = build(name)
    names = [stage.name for stage in plain.stages()]
    if name.startswith("timm:") or name == "efficientnet_lite0":
        names = [stage.name for stage in chain_of(plain.network)]
    if name == "clip":
        names = [stage.name for stage in clip.chain_of(plain.network)]
    assert MIDDLE[name] in names[:-1]
    frozen, _ = build(name, freeze=MIDDLE[name])
    frozen.train()
    frozen(x).square().sum().backward()
    for key, parameter in frozen.named_parameters():
        assert parameter.grad is not None, key
    stages = dict(plain.named_parameters()).keys() - dict(frozen.named_parameters()).keys()
    assert stages
    assert stages <= frozen.frozen_tensors().keys() == frozen_names(frozen)
    assert not frozen_names(frozen) & changing_buffers(frozen).keys()


@pytest.mark.parametrize("name", ["wide_resnet", "efficientnet_lite0"])
def test_frozen_stages_stay_in_evaluation_mode_whatever_is_called(name):
    frozen, x = build(name, freeze=MIDDLE[name])
    whole = nn.Sequential(frozen, nn.Linear(frozen.n_outputs, 2))
    for train in (whole.train, frozen.train, copy.deepcopy(whole).train):
        train()
        stages = frozen.stages()[: len(frozen.frozen)]
        modules = [each for stage in stages for module in stage.modules for each in module.modules()]
        assert len(modules) > 1
        assert not any(module.training for module in modules)
    assert frozen.training
    before = {key: value.clone() for key, value in frozen.frozen_tensors().items()}
    whole(x).sum().backward()
    assert all(torch.equal(before[key], value) for key, value in frozen.frozen_tensors().items())


def test_dropout_and_stochastic_depth_are_off_in_frozen_stages_only():
    frozen, x = build("mlp", freeze="input", mlp_dropout=0.5)
    frozen.train()
    assert torch.equal(frozen.frozen_outputs(x), frozen.frozen_outputs(x))
    torch.manual_seed(1)
    assert not torch.equal(frozen(x), frozen(x))


def test_all_leaves_nothing_to_train_and_keeps_the_dropout_of_features():
    frozen, x = build("resnet18", freeze="all", resnet_dropout=0.5)
    assert not list(frozen.parameters())
    assert frozen.frozen_shape == (512,)
    assert frozen.train()(x).eq(0).sum() > 512
    frozen.activation = nn.Tanh()
    assert frozen(frozen.frozen_outputs(x)).abs().max() <= 1


def test_weights_of_a_frozen_network_are_saved_and_loaded_by_the_same_names():
    frozen, x = build("small_cnn", freeze="conv2")
    file = io.BytesIO()
    torch.save(frozen.state_dict(), file)
    file.seek(0)
    torch.manual_seed(9)
    plain = Featurizer((2, 64, 64), {"featurizer": "small_cnn"})
    plain.load_state_dict(torch.load(file, weights_only=True))
    torch.testing.assert_close(plain(x), frozen(x))


def test_an_unknown_stage_is_named_with_the_choices():
    with pytest.raises(UsageError, match="one of none, conv1, conv2, conv3, all, not 'conv'") as caught:
        build("small_cnn", freeze="conv")
    assert "Did you mean conv" in describe(caught.value)


def test_a_featurizer_without_stages_is_refused(monkeypatch):
    class Plain(FeaturizerModule):
        n_outputs = 4

    monkeypatch.setitem(FEATURIZERS, "plain", lambda shape, hparams: Plain())
    with pytest.raises(UsageError, match="needs a featurizer with stages, but Plain has none"):
        build("plain", freeze="all")


def test_a_network_that_is_no_chain_of_modules_can_be_frozen_as_a_whole():
    if "test_vit_relpos" not in pytest.importorskip("timm").list_models():
        pytest.skip("this timm has no small network of this kind")
    with pytest.raises(UsageError, match=r"must be one of none, all, not 'blocks\.1'"):
        build("timm:test_vit_relpos", freeze="blocks.1")
    frozen, x = build("timm:test_vit_relpos", freeze="all")
    assert not list(frozen.parameters())
    assert torch.equal(frozen(frozen.frozen_outputs(x)), frozen(x))


def test_modules_in_another_order_are_no_chain():
    timm = pytest.importorskip("timm")
    network = timm.create_model("test_convnext", num_classes=0)
    stages = chain_of(network)
    assert is_chain(network, stages, (3, 64, 64))
    assert not is_chain(network, stages[:-1], (3, 64, 64))
    assert not is_chain(network, stages[::-1], (3, 64, 64))


def test_the_mlp_whose_inputs_and_outputs_have_one_shape_computes_its_frozen_stages():
    frozen, _ = build("mlp", freeze="input", mlp_width=9)
    assert frozen.frozen_shape is None
    assert isinstance(frozen, StagedFeaturizer)
    x = torch.randn(3, 9)
    expected = frozen.output(frozen.hidden(frozen.hiddens[0], frozen.frozen_outputs(x)))
    torch.testing.assert_close(frozen(x), expected)

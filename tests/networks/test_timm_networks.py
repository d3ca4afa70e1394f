"""Networks of timm as featurizers: the small ones from timm's own tests, which need no download."""

import re
from pathlib import Path

import pytest
import torch
from torch import nn

from domainbed.datasets.image_transforms import IMAGENET_MEAN, IMAGENET_STD
from domainbed.errors import UnknownName, UsageError, describe
from domainbed.hparams_registry import default_hparams
from domainbed.networks import Featurizer, featurizer_class
from domainbed.networks.libraries import timm_config
from domainbed.networks.timm_networks import Renormalise

DOCUMENT = Path(__file__).parents[2] / "docs/networks.md"

timm = pytest.importorskip("timm")

HPARAMS = default_hparams("ERM", "PACS") | {"pretrained": False}


def build(name, shape=(3, 64, 64), **hparams):
    return Featurizer(shape, HPARAMS | {"featurizer": f"timm:{name}"} | hparams)


@pytest.fixture
def saved(tmp_path):
    """`saved(name, **options)`: a network of timm in evaluation mode, and hparams with its weights."""

    def make(name, **options):
        torch.manual_seed(11)
        network = timm.create_model(name, **options).eval()
        torch.save(network.state_dict(), tmp_path / "mine.pth")
        return network, {"pretrained": True, "weights_file": str(tmp_path / "mine.pth")}

    return make


@pytest.mark.parametrize(
    ("name", "shape", "n_outputs"),
    [
        ("test_vit", (3, 64, 64), 64),
        ("test_vit", (1, 32, 48), 64),
        ("test_convnext", (3, 96, 96), 64),
        ("test_resnet", (2, 40, 40), 96),
        ("mobilenetv3_small_050", (3, 64, 64), 1024),  # more features than channels
    ],
)
def test_features_of_any_size_and_number_of_channels(name, shape, n_outputs):
    featurizer = build(name, shape)
    assert featurizer.n_outputs == n_outputs
    assert featurizer.training
    features = featurizer(torch.randn(2, *shape))
    assert features.shape == (2, n_outputs)
    features.square().sum().backward()
    assert all(parameter.grad is not None for parameter in featurizer.parameters())


@pytest.mark.parametrize(
    ("name", "side", "n_outputs"),
    [
        ("vit_tiny_patch16_224", 96, 192),
        ("convnext_atto", 96, 320),
        ("vit_xsmall_patch16_clip_224", 96, 256),
        ("vit_small_patch14_dinov2", 98, 384),  # its default size is 518 pixels
    ],
)
def test_weights_of_common_networks_are_adapted_to_other_sizes(name, side, n_outputs, saved):
    network, hparams = saved(name)
    transformer = "vit" in name
    featurizer = build(name, (3, side, side), **hparams, vit_attn_tune=transformer).eval()
    with torch.no_grad():
        assert featurizer(torch.randn(2, 3, side, side)).shape == (2, n_outputs)
    own, found = network.state_dict(), featurizer.network.state_dict()
    adapted = {each for each in found if not torch.equal(found[each], own[each])}
    assert adapted == ({"pos_embed"} if transformer else set())
    if transformer:
        trained = {each for each, p in featurizer.network.named_parameters() if p.requires_grad}
        assert trained == {each for each in found if ".attn." in each}


def test_timm_knows_the_examples_in_the_documentation():
    names = re.findall(r"timm:(\w+(?:\.\w+)?)", DOCUMENT.read_text(encoding="utf-8"))
    examples = [name for name in names if name.split(".")[0] != "NAME"]
    assert len(examples) >= 5
    for name in examples:
        assert timm_config(name).tag == name.partition(".")[2] or "." not in name


@pytest.mark.parametrize("name", ["test_vit", "test_convnext", "test_resnet"])
def test_all_weights_are_loaded_except_the_last_layer(name, saved):
    network, hparams = saved(name)
    featurizer = build(name, (3, 160, 160), **hparams).eval()
    mean, std = (torch.tensor(values).view(3, 1, 1) for values in (IMAGENET_MEAN, IMAGENET_STD))
    image = torch.rand(2, 3, 160, 160)
    with torch.no_grad():
        # These networks are trained on images with values from -1 to 1.
        expected = network.forward_head(network.forward_features((image - 0.5) / 0.5), pre_logits=True)
        torch.testing.assert_close(featurizer((image - mean) / std), expected, rtol=1e-4, atol=1e-5)
    assert featurizer.provenance["name"] == "mine.pth"
    assert len(featurizer.provenance["sha256"]) == 64


@pytest.mark.parametrize("num_classes", [0, 5])
def test_files_may_have_other_classes_or_no_last_layer(num_classes, saved):
    network, hparams = saved("test_vit", num_classes=num_classes)
    found = build("test_vit", (3, 160, 160), **hparams).network
    assert torch.equal(found.blocks[1].mlp.fc2.weight, network.blocks[1].mlp.fc2.weight)
    assert not any("state_dict" in config for config in (found.pretrained_cfg, found.default_cfg))


def test_position_embeddings_are_interpolated_to_the_input_size(saved):
    network, hparams = saved("test_vit")
    found = build("test_vit", (3, 32, 64), **hparams).network
    assert found.pos_embed.shape[1] == network.pos_embed.shape[1] - 10 * 10 + 2 * 4
    assert torch.equal(found.cls_token, network.cls_token)


def test_weights_of_another_network_are_rejected(saved):
    _, hparams = saved("test_resnet")
    with pytest.raises(UsageError, match=r"mine\.pth does not fit timm test_vit\.r160_in1k: ") as caught:
        build("test_vit", (3, 160, 160), **hparams)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("shape", [(3, 65, 64), (3, 1, 1)])
def test_invalid_shapes_are_rejected(shape, saved):
    _, hparams = saved("test_vit")
    for more in ({}, hparams):
        with pytest.raises(UsageError, match=r"timm:test_vit\S* takes .*not inputs of shape .*input_size"):
            build("test_vit", shape, **more)


def test_errors_for_names_and_tags():
    with pytest.raises(UnknownName, match="Network of timm not found: test_vitt") as caught:
        featurizer_class("timm:test_vitt")
    assert "Did you mean test_vit" in describe(caught.value)
    with pytest.raises(UsageError, match="no weights 'r160' of test_vit"):
        featurizer_class("timm:test_vit.r160")
    assert build("test_vit.r160_in1k", weights="r160_in1k").n_outputs == 64
    with pytest.raises(UsageError, match="no weights 'IMAGENET1K_V1' of test_vit"):
        build("test_vit", weights="IMAGENET1K_V1")
    with pytest.raises(
        UsageError, match=r'test_vit\.r160_in1k already names its weights: leave out "weights"'
    ):
        build("test_vit.r160_in1k", weights="other")


def test_freeze_bn_decides_the_mode_of_batch_norms():
    for frozen in (True, False):
        featurizer = build("test_resnet", freeze_bn=frozen).eval().train()
        norms = [m for m in featurizer.modules() if isinstance(m, nn.BatchNorm2d)]
        assert norms
        assert {m.training for m in norms} == {not frozen}


def test_only_attention_layers_are_trained():
    featurizer = build("test_vit", vit_attn_tune=True)
    trained = {name for name, p in featurizer.named_parameters() if p.requires_grad}
    assert trained == {name for name, _ in featurizer.named_parameters() if ".attn." in name}
    assert trained
    with pytest.raises(UsageError, match='"vit_attn_tune" needs attention layers'):
        build("test_convnext", vit_attn_tune=True)


def test_the_dropout_hyper_parameter_depends_on_the_architecture():
    for name, dropout in (("test_vit", 0.5), ("test_convnext", 0.25)):
        assert build(name, vit_dropout=0.5, resnet_dropout=0.25).dropout.p == dropout


def test_the_state_dict_holds_the_network_only():
    featurizer = build("test_vit")
    assert all(name.startswith("network.") for name in featurizer.state_dict())


def test_images_are_renormalised_only_if_the_weights_need_it():
    kinds = [
        ("test_vit", 3, Renormalise),
        ("test_vit", 1, nn.Identity),
        ("mobilenetv3_small_050", 3, nn.Identity),
    ]
    for name, channels, kind in kinds:
        assert type(build(name, (channels, 64, 64)).renormalise) is kind


def test_renormalise():
    image = torch.rand(1, 3, 4, 4, dtype=torch.float64).float()
    mean, std = (torch.tensor(values).view(3, 1, 1) for values in (IMAGENET_MEAN, IMAGENET_STD))
    other = Renormalise((0.1, 0.2, 0.3), (1.0, 2.0, 3.0))((image - mean) / std)
    expected = (image - torch.tensor([0.1, 0.2, 0.3]).view(3, 1, 1)) / torch.tensor([1.0, 2, 3]).view(3, 1, 1)
    torch.testing.assert_close(other, expected)

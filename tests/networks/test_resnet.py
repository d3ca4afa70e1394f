import logging

import pytest
import torch
from torch import nn
from torchvision.models import resnet18, resnet50

from domainbed.errors import UsageError, describe
from domainbed.networks import Classifier, Featurizer, ResNet, resnet
from domainbed.networks.first_layer import with_channels

HPARAMS = {
    "resnet18": True,
    "resnet50_augmix": False,
    "freeze_bn": False,
    "resnet_dropout": 0.0,
    "pretrained": False,
}


def test_it_is_torchvisions_network_without_its_last_layer():
    torch.manual_seed(0)
    ours = ResNet((3, 32, 32), HPARAMS | {"layout": "plain"}).eval()
    torch.manual_seed(0)
    theirs = resnet18().eval()
    theirs.fc = nn.Identity()
    x = torch.randn(2, 3, 64, 64)
    with torch.no_grad():
        assert torch.equal(ours(x), theirs(x))
    assert ours.n_outputs == 512


def test_freeze_bn_keeps_statistics_but_trains_scales():
    featurizer = ResNet((3, 32, 32), HPARAMS | {"freeze_bn": True})
    norms = [m for m in featurizer.modules() if isinstance(m, nn.BatchNorm2d)]
    assert norms
    assert not any(m.training for m in norms)
    assert featurizer.eval().train() is featurizer
    assert featurizer.training
    assert not any(m.training for m in norms)
    before = norms[0].running_mean.clone()
    featurizer(torch.randn(2, 3, 32, 32)).sum().backward()
    assert torch.equal(norms[0].running_mean, before)
    assert norms[0].weight.grad is not None


def test_dropout_is_on_the_features():
    torch.manual_seed(0)
    featurizer = ResNet((3, 32, 32), HPARAMS | {"resnet_dropout": 0.5})
    with torch.no_grad():
        dropped = (featurizer(torch.randn(4, 3, 64, 64)) == 0).float().mean()
    assert 0.4 < dropped < 0.6


@pytest.mark.parametrize("channels", [1, 2, 3, 5])
def test_other_numbers_of_channels_repeat_the_first_layers_weights(channels):
    conv = nn.Conv2d(3, 8, 7, stride=2, padding=3, bias=False)
    new = with_channels(conv, channels)
    assert (new is conv) == (channels == 3)
    assert (new.stride, new.padding, new.bias) == (conv.stride, conv.padding, None)
    for i in range(channels):
        assert torch.equal(new.weight[:, i], conv.weight[:, i % 3])
    assert new(torch.randn(1, channels, 16, 16)).shape == (1, 8, 8, 8)


def test_with_channels_keeps_a_bias():
    conv = nn.Conv2d(3, 4, 3)
    assert torch.equal(with_channels(conv, 2).bias, conv.bias)


def test_parity_init_draws_upstreams_discarded_network_first():
    timm = pytest.importorskip("timm")
    hparams = HPARAMS | {"resnet18": False, "resnet50_augmix": True}

    def classifier(more):
        torch.manual_seed(0)
        return Classifier(ResNet((3, 32, 32), hparams | more).n_outputs, 4).weight

    torch.manual_seed(0)
    resnet50()
    timm.create_model("resnet50.ram_in1k")
    upstreams = nn.Linear(2048, 4).weight
    assert torch.equal(classifier({"parity_init": True}), upstreams)
    assert not torch.equal(classifier({}), upstreams)


def test_resnet18_has_no_effect_under_augmix_and_this_is_said_once(caplog):
    pytest.importorskip("timm")
    resnet._warn_about_resnet18.cache_clear()
    with caplog.at_level(logging.WARNING):
        for _ in range(2):
            assert ResNet((3, 32, 32), HPARAMS | {"resnet50_augmix": True}).n_outputs == 2048
    assert [r.getMessage() for r in caplog.records if "resnet18" in r.getMessage()] == [
        'hyper-parameter "resnet18" has no effect while "resnet50_augmix" is true (as in upstream): '
        'this is a ResNet-50; give "resnet50_augmix": false for ResNet-18'
    ]


def test_without_timm_the_error_says_what_to_install(monkeypatch):
    monkeypatch.setitem(__import__("sys").modules, "timm", None)
    with pytest.raises(UsageError, match=r"pip install 'timm.*\"resnet50_augmix\": false"):
        ResNet((3, 32, 32), HPARAMS | {"resnet50_augmix": True})


@pytest.mark.parametrize(
    ("given", "file", "make"),
    [
        ({"weights": "IMAGENET1K_V2"}, "resnet50-11ad3fa6.pth", resnet50),
        # A tag wins over `resnet50_augmix`, so that `resnet18` has an effect.
        ({"resnet18": True, "weights": "IMAGENET1K_V1"}, "resnet18-f37072fd.pth", resnet18),
    ],
)
def test_weights_by_their_tag(given, file, make, hub):
    network = make()
    torch.save(network.state_dict(), hub / file)
    hparams = HPARAMS | {"resnet18": False, "resnet50_augmix": True, "pretrained": True} | given
    found = ResNet((3, 32, 32), hparams)
    assert torch.equal(found.network.conv1.weight, network.conv1.weight)
    assert found.provenance["name"].endswith(f"({given['weights']})")


def test_a_tag_of_timms(hub):
    timm = pytest.importorskip("timm")
    network = timm.create_model("resnet18")
    torch.save(network.state_dict(), hub / "resnet18.a1_in1k.pth")
    found = Featurizer(
        (3, 32, 32), HPARAMS | {"featurizer": "resnet18", "pretrained": True, "weights": "a1_in1k"}
    )
    assert torch.equal(found.network.conv1.weight, network.conv1.weight)
    assert found.provenance["name"] == "timm resnet18.a1_in1k"
    assert found.n_outputs == 512


def test_an_unknown_tag_is_told_what_is_near():
    pytest.importorskip("timm")
    with pytest.raises(UsageError, match="there are no weights 'IMAGENET1K_V3' of resnet50") as caught:
        Featurizer((3, 32, 32), HPARAMS | {"featurizer": "resnet50", "weights": "IMAGENET1K_V3"})
    assert "Did you mean IMAGENET1K_V2 or IMAGENET1K_V1" in describe(caught.value)

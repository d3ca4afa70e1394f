import logging

import pytest
import torch
from torch import nn
from torchvision.models import resnet18, resnet50

from domainbed.errors import UsageError, describe
from domainbed.networks import Classifier, Featurizer, ResNet, resnet

HPARAMS = {
    "resnet18": True,
    "resnet50_augmix": False,
    "freeze_bn": False,
    "resnet_dropout": 0.0,
    "pretrained": False,
}


def test_features_are_those_of_torchvisions_network_without_its_last_layer():
    torch.manual_seed(0)
    ours = ResNet((3, 32, 32), HPARAMS | {"layout": "plain"}).eval()
    torch.manual_seed(0)
    theirs = resnet18().eval()
    theirs.fc = nn.Identity()
    x = torch.randn(2, 3, 64, 64)
    with torch.no_grad():
        assert torch.equal(ours(x), theirs(x))
    assert ours.n_outputs == 512


def test_freeze_bn_keeps_running_statistics_and_trains_scales():
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


def test_dropout_is_applied_to_the_features():
    torch.manual_seed(0)
    featurizer = ResNet((3, 32, 32), HPARAMS | {"resnet_dropout": 0.5})
    with torch.no_grad():
        dropped = (featurizer(torch.randn(4, 3, 64, 64)) == 0).float().mean()
    assert 0.4 < dropped < 0.6


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


def test_resnet18_has_no_effect_with_augmix_and_one_warning_says_so(caplog):
    pytest.importorskip("timm")
    resnet._warn_about_resnet18.cache_clear()
    with caplog.at_level(logging.WARNING):
        for _ in range(2):
            assert ResNet((3, 32, 32), HPARAMS | {"resnet50_augmix": True}).n_outputs == 2048
    assert [r.getMessage() for r in caplog.records if "resnet18" in r.getMessage()] == [
        'hyper-parameter "resnet18" has no effect while "resnet50_augmix" is true (as in upstream): '
        'this is a ResNet-50; set "resnet50_augmix": false for ResNet-18'
    ]


def test_without_timm_the_error_names_the_package_to_install(monkeypatch):
    monkeypatch.setitem(__import__("sys").modules, "timm", None)
    with pytest.raises(UsageError, match=r"pip install 'timm.*\"resnet50_augmix\": false"):
        ResNet((3, 32, 32), HPARAMS | {"resnet50_augmix": True})


@pytest.mark.parametrize(
    ("given", "file", "make"),
    [
        ({"weights": "IMAGENET1K_V2"}, "resnet50-11ad3fa6.pth", resnet50),
        # A tag overrides `resnet50_augmix`, so `resnet18` has an effect.
        ({"resnet18": True, "weights": "IMAGENET1K_V1"}, "resnet18-f37072fd.pth", resnet18),
    ],
)
def test_weights_are_selected_by_tag(given, file, make, hub):
    network = make()
    torch.save(network.state_dict(), hub / file)
    hparams = HPARAMS | {"resnet18": False, "resnet50_augmix": True, "pretrained": True} | given
    found = ResNet((3, 32, 32), hparams)
    assert torch.equal(found.network.conv1.weight, network.conv1.weight)
    assert found.provenance["name"].endswith(f"({given['weights']})")


def test_tags_of_timm_are_accepted(hub):
    timm = pytest.importorskip("timm")
    network = timm.create_model("resnet18")
    torch.save(network.state_dict(), hub / "resnet18.a1_in1k.pth")
    found = Featurizer(
        (3, 32, 32), HPARAMS | {"featurizer": "resnet18", "pretrained": True, "weights": "a1_in1k"}
    )
    assert torch.equal(found.network.conv1.weight, network.conv1.weight)
    assert found.provenance["name"] == "timm resnet18.a1_in1k"
    assert found.n_outputs == 512


def test_the_error_for_an_unknown_tag_suggests_similar_ones():
    pytest.importorskip("timm")
    with pytest.raises(UsageError, match="unknown weights 'IMAGENET1K_V3' of resnet50") as caught:
        Featurizer((3, 32, 32), HPARAMS | {"featurizer": "resnet50", "weights": "IMAGENET1K_V3"})
    assert "Did you mean IMAGENET1K_V2 or IMAGENET1K_V1" in describe(caught.value)

"""Presets of hyper-parameters, given to a run in `--hparams`."""

import pytest
import torch
from torchvision.models import resnet50

from domainbed.errors import UsageError
from domainbed.networks.options import PRESETS, with_preset
from domainbed.training.config import TrainConfig
from domainbed.training.derived import make_featurizer
from domainbed.training.run_hparams import resolved_hparams


def test_published_is_torchvisions_resnet50_with_its_first_weights_and_frozen_batch_norms(hub):
    torch.manual_seed(7)
    theirs = resnet50()
    torch.save(theirs.state_dict(), hub / "resnet50-0676ba61.pth")
    config = TrainConfig(dataset="Debug224", hparams='{"preset": "published", "layout": "plain"}')
    featurizer = make_featurizer(config).train()
    assert featurizer.provenance["name"] == "torchvision resnet50 (IMAGENET1K_V1)"
    theirs.fc = torch.nn.Identity()
    x = torch.randn(2, 3, 224, 224)
    with torch.no_grad():
        assert torch.equal(featurizer(x), theirs.eval()(x))
    hparams = resolved_hparams(config)
    assert {**hparams, "preset": "published", **PRESETS["published"]} == hparams


def test_given_values_take_precedence_over_the_preset():
    assert with_preset({"freeze_bn": False, "lr": 1.0, "preset": "published"}) == {
        **PRESETS["published"],
        **{"freeze_bn": False, "lr": 1.0, "preset": "published"},
    }
    assert with_preset({"lr": 1.0}) == {"lr": 1.0}


@pytest.mark.parametrize(
    ("preset", "message"),
    [
        ("publisht", "must be one of none, published, not 'publisht'"),
        (3, r"takes a value of type str, not 3 \(int\)"),
    ],
)
def test_unknown_presets_are_rejected(preset, message):
    with pytest.raises(UsageError, match=f"hyper-parameter preset {message}"):
        with_preset({"preset": preset})

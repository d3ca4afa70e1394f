"""Pretrained weights, read from files laid out as in torch's hub cache."""

import argparse
import hashlib
import json
from pathlib import Path

import pytest
import torch
from torch import nn
from torchvision.models import resnet18

import domainbed
from domainbed.errors import UsageError, describe
from domainbed.networks import ResNet
from domainbed.networks.base import NO_WEIGHTS, provenance_of
from domainbed.networks.published import checkpoints
from domainbed.networks.weights import read

HPARAMS = {"resnet18": True, "resnet50_augmix": False, "freeze_bn": False, "resnet_dropout": 0.0}


@pytest.fixture(scope="module")
def trained():
    """A ResNet-18 with weights of its own."""
    torch.manual_seed(99)
    return resnet18()


def conv1_and_bn(network):
    return torch.cat([network.conv1.weight.flatten(), network.layer4[1].bn2.running_var])


def test_weights_are_read_from_the_hub_cache(hub, trained):
    assert checkpoints() == hub
    torch.save(trained.state_dict(), hub / "resnet18-f37072fd.pth")
    assert torch.equal(conv1_and_bn(ResNet((3, 32, 32), HPARAMS).network), conv1_and_bn(trained))
    grey = ResNet((1, 32, 32), HPARAMS)
    assert torch.equal(grey.network.conv1.weight[:, 0], trained.conv1.weight[:, 0])
    assert grey.provenance == {
        "name": "torchvision resnet18 (IMAGENET1K_V1)",
        "sha256": hashlib.sha256((hub / "resnet18-f37072fd.pth").read_bytes()).hexdigest(),
    }
    scratch = ResNet((3, 32, 32), HPARAMS | {"pretrained": False})
    assert scratch.provenance is NO_WEIGHTS
    assert not torch.equal(conv1_and_bn(scratch.network), conv1_and_bn(trained))


def test_a_weights_file_takes_precedence_and_may_have_other_classes(hub, trained, tmp_path):
    (hub / "resnet18-f37072fd.pth").write_bytes(b"not read")
    state = trained.state_dict() | {"fc.weight": torch.zeros(5, 512), "fc.bias": torch.zeros(5)}
    torch.save({"state_dict": state}, tmp_path / "mine.pth")
    featurizer = ResNet((3, 32, 32), HPARAMS | {"weights_file": str(tmp_path / "mine.pth")})
    assert torch.equal(conv1_and_bn(featurizer.network), conv1_and_bn(trained))
    assert featurizer.provenance["name"] == "mine.pth"


def test_every_record_of_a_run_has_the_name_and_hash_of_its_weights(hub, trained, exported, tmp_path):
    torch.save(trained.state_dict(), hub / "resnet18-f37072fd.pth")
    hparams = {"featurizer": "resnet18", "input_size": 32, "batch_size": 2}
    settings = {"dataset": str(exported["png"]), "steps": 2, "checkpoint_freq": 1, "skip_model_save": True}
    domainbed.train(**settings, hparams=hparams, output_dir=tmp_path / "run")
    records = [json.loads(line) for line in (tmp_path / "run/results.jsonl").read_text().splitlines()]
    expected = {
        "name": "torchvision resnet18 (IMAGENET1K_V1)",
        "sha256": hashlib.sha256((hub / "resnet18-f37072fd.pth").read_bytes()).hexdigest(),
    }
    assert [record["weights"] for record in records] == [expected, expected]
    assert json.loads((tmp_path / "run/run.json").read_text())["weights"] == expected


def test_the_provenance_of_an_algorithm_is_that_of_its_first_pretrained_featurizer(hub, trained):
    torch.save(trained.state_dict(), hub / "resnet18-f37072fd.pth")
    pretrained = ResNet((3, 32, 32), HPARAMS)
    scratch = ResNet((3, 32, 32), HPARAMS | {"pretrained": False})
    assert provenance_of(nn.ModuleList([scratch, nn.Sequential(pretrained)])) is pretrained.provenance
    assert provenance_of(nn.Sequential(scratch, nn.Linear(2, 2))) is NO_WEIGHTS


def test_the_error_for_missing_weights_says_where_to_put_which_file(hub):
    with pytest.raises(UsageError) as caught:
        ResNet((3, 32, 32), HPARAMS)
    line = describe(caught.value)
    assert f"put resnet18-f37072fd.pth into {hub}" in line
    assert '"weights_file"' in line
    assert line.endswith('or train from scratch with "pretrained": false.')
    assert "\n" not in line
    assert not list(hub.iterdir())


@pytest.mark.parametrize("content", [b"", b"no weights", b"PK\x03\x04 half an archive", None])
def test_the_error_for_a_damaged_file_names_it(hub, trained, content):
    path = hub / "resnet18-f37072fd.pth"
    torch.save(trained.state_dict(), path)
    path.write_bytes(path.read_bytes()[:100_000] if content is None else content)
    with pytest.raises(UsageError, match="damaged") as caught:
        ResNet((3, 32, 32), HPARAMS)
    assert str(path) in str(caught.value)
    assert "\n" not in str(caught.value)


def test_weights_of_another_network_are_rejected_in_one_line(tmp_path):
    torch.save(nn.Linear(3, 4).state_dict(), tmp_path / "linear.pth")
    with pytest.raises(
        UsageError, match=r"linear\.pth does not fit torchvision resnet18 .*Missing key"
    ) as caught:
        ResNet((3, 32, 32), HPARAMS | {"weights_file": str(tmp_path / "linear.pth")})
    assert "\n" not in str(caught.value)
    assert len(str(caught.value)) < 400


class Code:
    """An object that safe loading must not build."""


def test_files_with_code_or_anything_but_tensors_are_rejected(tmp_path):
    for name, content in {"list": [1, 2], "numbers": {"a": 1}, "code": {"a": Code()}}.items():
        torch.save(content, tmp_path / f"{name}.pth")
        with pytest.raises(UsageError, match=r"not (hold )?a state dict"):
            read(tmp_path / f"{name}.pth")
    with pytest.raises(UsageError, match="does not exist"):
        read(tmp_path / "nothing.pth")


def test_options_beside_the_weights_are_inert_and_skipped(trained, tmp_path, monkeypatch):
    """As training scripts save them: `{"model": ..., "args": Namespace}`, or among the tensors."""
    options = argparse.Namespace(lr=0.1, output_dir=Path("out"), nested=argparse.Namespace(a=[1]))
    torch.save({"model": trained.state_dict(), "args": options, "epoch": 3}, tmp_path / "beside.pth")
    torch.save(trained.state_dict() | {"args": options}, tmp_path / "among.pth")
    built = []
    monkeypatch.setattr(argparse.Namespace, "__init__", lambda *_, **__: built.append(1))
    for name in ("beside", "among"):
        state = read(tmp_path / f"{name}.pth")
        assert state.keys() == trained.state_dict().keys()
    assert built == []


def test_the_error_for_an_object_of_another_class_names_it(tmp_path):
    torch.save({"model": {"a": torch.zeros(1)}, "config": Code()}, tmp_path / "code.pth")
    with pytest.raises(UsageError, match=r"has an object of .*test_weights\.Code.*save the weights alone"):
        read(tmp_path / "code.pth")

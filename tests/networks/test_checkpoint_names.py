"""Checkpoints of other people's training: names with prefixes, and parts beside the network."""

import contextlib
import io
import json
import re
from pathlib import Path

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import nn
from torchvision.models import resnet18

from domainbed.errors import UsageError
from domainbed.hparams_registry import default_hparams
from domainbed.networks import Featurizer
from domainbed.networks.checkpoint_names import ENCODERS, PARTS, WRAPPERS, own_names
from domainbed.networks.libraries import timm_config
from domainbed.networks.published import Pretrained, of_timm
from domainbed.networks.weights import initialise
from domainbed.training.api import train
from domainbed.training.config import TrainConfig

HPARAMS = default_hparams("ERM", "PACS") | {"featurizer": "resnet18"}
DOCUMENT = Path(__file__).parents[2] / "docs/networks.md"


@pytest.fixture(scope="module")
def trained():
    """A ResNet-18 with weights of its own."""
    torch.manual_seed(99)
    return resnet18()


def with_prefix(prefix, state):
    return {prefix + name: each for name, each in state.items()}


def projection(name, *sizes):
    """The layers of MoCo v2's projection in place of a last layer."""
    layers = nn.Sequential(nn.Linear(*sizes), nn.ReLU(), nn.Linear(sizes[1], 4))
    return with_prefix(f"{name}.", layers.state_dict())


def moco_v2(state):
    """The layout of MoCo v1's and v2's files."""
    backbone = {name: each for name, each in state.items() if not name.startswith("fc.")}
    network = backbone | projection("fc", 512, 512)
    momentum = {name: torch.zeros_like(each) for name, each in network.items()}
    queue = {"queue": torch.zeros(4, 8), "queue_ptr": torch.zeros(1, dtype=torch.long)}
    parts = with_prefix("encoder_q.", network) | with_prefix("encoder_k.", momentum) | queue
    return {
        "epoch": 200,
        "arch": "resnet18",
        "state_dict": with_prefix("module.", parts),
        "optimizer": {"state": {}},
    }


def moco_v3(state):
    momentum = {name: torch.zeros_like(each) for name, each in state.items()}
    parts = with_prefix("base_encoder.", state) | with_prefix("momentum_encoder.", momentum)
    return {"state_dict": with_prefix("module.", parts | projection("predictor", 8, 8))}


FILES = {
    "MoCo v2": (
        moco_v2,
        r"prefix module\.encoder_q\. stripped; last layer dropped: module\.encoder_q\.fc\.0\.weight, .*"
        r"; ignored: module\.encoder_k \(124 tensors\), module\.queue, module\.queue_ptr",
    ),
    "MoCo v3": (
        moco_v3,
        r"prefix module\.base_encoder\. stripped; .*; "
        r"ignored: module\.momentum_encoder \(122 tensors\), module\.predictor \(4 tensors\)",
    ),
    "several processes": (
        lambda state: with_prefix("module.", state),
        r"prefix module\. stripped; last layer dropped: module\.fc\.weight, module\.fc\.bias",
    ),
    "backbone and neck": (
        lambda state: {"model": with_prefix("backbone.", state) | projection("neck", 8, 8)},
        r"prefix backbone\. stripped; .*; ignored: neck \(4 tensors\)",
    ),
    "compiled": (
        lambda state: with_prefix("_orig_mod.", state),
        r"prefix _orig_mod\. stripped; last layer dropped: .*",
    ),
    "an average of weights": (
        lambda state: {"n_averaged": torch.tensor(3)} | with_prefix("module.", state),
        r"prefix module\. stripped; .*; ignored: n_averaged",
    ),
    "parts without a prefix": (
        lambda state: state | with_prefix("momentum_encoder.", state),
        r"last layer dropped: fc\.weight, fc\.bias; ignored: momentum_encoder \(122 tensors\)",
    ),
    "a last layer": (lambda state: state, r"last layer dropped: fc\.weight, fc\.bias"),
}


@pytest.mark.parametrize("layout", FILES)
def test_the_network_in_a_checkpoint_is_found_and_what_was_left_out_is_said(layout, trained, tmp_path):
    make, said = FILES[layout]
    torch.save(make(trained.state_dict()), tmp_path / "theirs.pth")
    found = Featurizer((3, 32, 32), HPARAMS | {"weights_file": str(tmp_path / "theirs.pth")})
    own = trained.state_dict()
    for name, each in found.network.state_dict().items():
        assert torch.equal(each, own[name]), name
    assert found.provenance["name"] == "theirs.pth"
    assert re.fullmatch(said, found.provenance["adapted"])


def test_nothing_is_said_of_a_file_that_is_loaded_as_it_is(trained, tmp_path):
    state = {name: each for name, each in trained.state_dict().items() if not name.startswith("fc.")}
    torch.save(state, tmp_path / "mine.pth")
    found = Featurizer((3, 32, 32), HPARAMS | {"weights_file": str(tmp_path / "mine.pth")})
    assert found.provenance.keys() == {"name", "sha256"}


@pytest.mark.parametrize("layout", ["MoCo v2", "several processes"])
def test_nothing_but_the_last_layer_may_be_missing(layout, trained, tmp_path):
    state = trained.state_dict()
    del state["layer3.1.conv2.weight"]
    torch.save(FILES[layout][0](state), tmp_path / "less.pth")
    with pytest.raises(UsageError, match=r"less\.pth does not fit .*Missing key.*layer3\.1\.conv2\.weight"):
        Featurizer((3, 32, 32), HPARAMS | {"weights_file": str(tmp_path / "less.pth")})


def test_parts_of_a_network_may_have_names_that_are_prefixes_elsewhere(tmp_path):
    """A plugin's network with a backbone and a neck of its own."""
    network = nn.ModuleDict({"backbone": nn.Linear(2, 2), "neck": nn.Linear(2, 2)})
    theirs = {name: torch.full_like(each, 3) for name, each in network.state_dict().items()}
    torch.save(theirs, tmp_path / "theirs.pth")
    found = initialise(
        network, Pretrained("own", "", ()), {"weights_file": str(tmp_path / "theirs.pth")}, ("fc.",)
    )
    assert found.keys() == {"name", "sha256"}
    assert all((each == 3).all() for each in network.state_dict().values())


@given(st.lists(st.sampled_from([*WRAPPERS, *ENCODERS]), max_size=4), st.sets(st.sampled_from(PARTS)))
def test_prefixes_are_stripped_in_any_order_and_number(prefixes, parts):
    state = {"conv1.weight": torch.zeros(2), "fc.bias": torch.ones(1)}
    prefix = "".join(prefixes)
    beside = {f"{prefix}{part}.weight": torch.zeros(1) for part in parts}
    found = own_names(with_prefix(prefix, state) | beside)
    assert found.state == state
    assert found.prefix == prefix
    assert set(found.ignored) == set(beside)


@pytest.mark.parametrize("layout", ["MoCo v3", "plain"])
def test_a_vision_transformer_of_moco_v3_is_loaded_into_timms(layout, tmp_path):
    timm = pytest.importorskip("timm")
    torch.manual_seed(7)
    theirs = timm.create_model("test_vit", num_classes=0).eval()
    state = theirs.state_dict() | projection("head", 64, 64)
    torch.save(moco_v3(state) if layout == "MoCo v3" else state, tmp_path / "vit.pth.tar")
    hparams = {"featurizer": "timm:test_vit", "weights_file": str(tmp_path / "vit.pth.tar")}
    found = Featurizer((3, 160, 160), HPARAMS | hparams)
    assert all(
        torch.equal(each, theirs.state_dict()[name]) for name, each in found.network.state_dict().items()
    )
    assert found.n_outputs == 64
    assert ("module.base_encoder." in found.provenance["adapted"]) == (layout == "MoCo v3")
    assert "head.0.weight" in found.provenance["adapted"]


def test_a_run_prints_and_records_what_was_left_out(trained, exported, tmp_path):
    torch.save(moco_v2(trained.state_dict()), tmp_path / "moco_v2.pth.tar")
    hparams = {
        "featurizer": "resnet18",
        "input_size": 32,
        "batch_size": 2,
        "weights_file": str(tmp_path / "moco_v2.pth.tar"),
    }
    config = TrainConfig(
        dataset=str(exported["png"]), steps=1, skip_model_save=True, output_dir=str(tmp_path / "run"),
        hparams=json.dumps(hparams),
    )  # fmt: skip
    output = io.StringIO()
    with contextlib.redirect_stdout(output):
        train(config)
    (record,) = map(json.loads, (tmp_path / "run" / "results.jsonl").read_text().splitlines())
    assert record["weights"]["adapted"].startswith("prefix module.encoder_q. stripped; last layer dropped")
    assert f"\tinitial weights: {record['weights']['adapted']}\n" in output.getvalue()


def listed_tags():
    """Names of self-supervised weights in the documentation's table."""
    section = (
        DOCUMENT.read_text(encoding="utf-8").partition("### Self-supervised weights")[2].partition("###")[0]
    )
    return re.findall(r"`timm:([\w.]+)`", section)


def test_timm_has_the_documented_self_supervised_weights():
    pytest.importorskip("timm")
    names = listed_tags()
    for method in (".dino", "dinov2", "dinov3", ".mae", "fcmae"):
        assert any(method in name for name in names)
    for name in names:
        config = timm_config(name)
        assert config.num_classes == 0, "labels were used"
        assert of_timm(name).files


@pytest.mark.parametrize(
    ("name", "side", "n_outputs"),
    [
        ("vit_small_patch16_224.dino", 32, 384),
        ("vit_small_patch14_reg4_dinov2.lvd142m", 28, 384),
        ("vit_small_patch16_dinov3.lvd1689m", 32, 384),
        ("convnextv2_atto.fcmae", 32, 320),
    ],
)
def test_self_supervised_weights_by_timms_tag(name, side, n_outputs, hub):
    timm = pytest.importorskip("timm")
    torch.manual_seed(5)
    theirs = timm.create_model(name)
    torch.save(theirs.state_dict(), hub / f"{name}.pth")
    found = Featurizer((3, side, side), HPARAMS | {"featurizer": f"timm:{name}"})
    assert found.provenance["name"] == f"timm {name}"
    own = theirs.state_dict()
    changed = {
        each for each, value in found.network.state_dict().items() if not torch.equal(value, own[each])
    }
    assert changed <= {"pos_embed"}
    assert found(torch.zeros(2, 3, side, side)).shape == (2, n_outputs)

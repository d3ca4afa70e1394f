"""Pretrained weights, from real files in the layouts of the caches, and from a real server."""

import functools
import hashlib
import http.server
import threading

import pytest
import torch
from torch import nn
from torchvision.models import resnet18

from domainbed.errors import UsageError, describe
from domainbed.networks import ResNet
from domainbed.networks.weights import Pretrained, checkpoints, initialise, read

HPARAMS = {"resnet18": True, "resnet50_augmix": False, "freeze_bn": False, "resnet_dropout": 0.0}


@pytest.fixture(autouse=True)
def hub(tmp_path, monkeypatch):
    """An empty hub cache, and no way out to the network."""
    monkeypatch.setenv("TORCH_HOME", str(tmp_path / "torch"))
    for name in ("http_proxy", "https_proxy", "HTTP_PROXY", "HTTPS_PROXY"):
        monkeypatch.setenv(name, "http://127.0.0.1:9")
    monkeypatch.setenv("no_proxy", "127.0.0.1")
    monkeypatch.setenv("NO_PROXY", "127.0.0.1")
    folder = tmp_path / "torch" / "hub" / "checkpoints"
    folder.mkdir(parents=True)
    return folder


@pytest.fixture(scope="module")
def trained():
    """A ResNet-18 that nobody else has."""
    torch.manual_seed(99)
    return resnet18()


def conv1_and_bn(network):
    return torch.cat([network.conv1.weight.flatten(), network.layer4[1].bn2.running_var])


def test_resnet18_from_the_hub_cache(hub, trained):
    assert checkpoints() == hub
    torch.save(trained.state_dict(), hub / "resnet18-f37072fd.pth")
    assert torch.equal(conv1_and_bn(ResNet((3, 32, 32), HPARAMS).network), conv1_and_bn(trained))
    grey = ResNet((1, 32, 32), HPARAMS)
    assert torch.equal(grey.network.conv1.weight[:, 0], trained.conv1.weight[:, 0])
    scratch = ResNet((3, 32, 32), HPARAMS | {"pretrained": False})
    assert not torch.equal(conv1_and_bn(scratch.network), conv1_and_bn(trained))


def test_the_users_file_wins_and_may_have_other_classes(hub, trained, tmp_path):
    (hub / "resnet18-f37072fd.pth").write_bytes(b"not read")
    state = trained.state_dict() | {"fc.weight": torch.zeros(5, 512), "fc.bias": torch.zeros(5)}
    torch.save({"state_dict": state}, tmp_path / "mine.pth")
    featurizer = ResNet((3, 32, 32), HPARAMS | {"weights_file": str(tmp_path / "mine.pth")})
    assert torch.equal(conv1_and_bn(featurizer.network), conv1_and_bn(trained))


def test_timms_weights_from_the_hugging_face_cache(tmp_path, monkeypatch):
    timm, constants = pytest.importorskip("timm"), pytest.importorskip("huggingface_hub.constants")
    from safetensors.torch import save_file

    network = timm.create_model("resnet50.ram_in1k")
    cached = tmp_path / "hf" / "models--timm--resnet50.ram_in1k"
    revision = "0123456789abcdef0123456789abcdef01234567"
    (cached / "refs").mkdir(parents=True)
    (cached / "refs" / "main").write_text(revision)
    (cached / "snapshots" / revision).mkdir(parents=True)
    save_file(network.state_dict(), cached / "snapshots" / revision / "model.safetensors")
    monkeypatch.setattr(constants, "HF_HUB_CACHE", str(tmp_path / "hf"))
    found = ResNet((3, 32, 32), HPARAMS | {"resnet18": False, "resnet50_augmix": True}).network
    assert torch.equal(found.layer4[2].conv3.weight, network.layer4[2].conv3.weight)


def test_missing_weights_say_which_file_to_put_where(hub):
    with pytest.raises(UsageError) as caught:
        ResNet((3, 32, 32), HPARAMS)
    line = describe(caught.value)
    assert f"put resnet18-f37072fd.pth into {hub}" in line
    assert '"weights_file"' in line
    assert line.endswith('or train from scratch with "pretrained": false.')
    assert "\n" not in line
    assert not list(hub.iterdir())


@pytest.mark.parametrize("content", [b"", b"no weights", b"PK\x03\x04 half an archive", None])
def test_a_damaged_file_is_named(hub, trained, content):
    path = hub / "resnet18-f37072fd.pth"
    torch.save(trained.state_dict(), path)
    path.write_bytes(path.read_bytes()[:100_000] if content is None else content)
    with pytest.raises(UsageError, match="damaged") as caught:
        ResNet((3, 32, 32), HPARAMS)
    assert str(path) in str(caught.value)
    assert "\n" not in str(caught.value)


def test_weights_of_another_network_are_refused_in_one_line(tmp_path):
    torch.save(nn.Linear(3, 4).state_dict(), tmp_path / "linear.pth")
    with pytest.raises(
        UsageError, match=r"linear\.pth does not fit torchvision resnet18 .*Missing key"
    ) as caught:
        ResNet((3, 32, 32), HPARAMS | {"weights_file": str(tmp_path / "linear.pth")})
    assert "\n" not in str(caught.value)
    assert len(str(caught.value)) < 400


class Code:
    """An object that a safe reader must not build."""


def test_files_that_hold_something_else_or_code_are_refused(tmp_path):
    for name, content in {"list": [1, 2], "numbers": {"a": 1}, "code": {"a": Code()}}.items():
        torch.save(content, tmp_path / f"{name}.pth")
        with pytest.raises(UsageError, match="no state dict"):
            read(tmp_path / f"{name}.pth")
    with pytest.raises(UsageError, match="does not exist"):
        read(tmp_path / "nothing.pth")


@pytest.fixture
def server(tmp_path):
    """A folder that is served, and its address."""
    (tmp_path / "www").mkdir()

    class Handler(http.server.SimpleHTTPRequestHandler):
        def log_message(self, *args):
            pass

    handler = functools.partial(Handler, directory=tmp_path / "www")
    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), handler) as httpd:
        threading.Thread(target=httpd.serve_forever, daemon=True).start()
        yield tmp_path / "www", f"http://127.0.0.1:{httpd.server_address[1]}"
        httpd.shutdown()


def test_download_into_the_hub_cache(server, hub, tmp_path):
    folder, address = server
    network, target = nn.Linear(3, 4), nn.Linear(3, 4)
    torch.save(network.state_dict(), tmp_path / "w.pth")
    digest = hashlib.sha256((tmp_path / "w.pth").read_bytes()).hexdigest()[:8]
    (tmp_path / "w.pth").rename(folder / f"linear-{digest}.pth")
    source = Pretrained("linear", f"{address}/linear-{digest}.pth")
    initialise(target, source, {}, ignored=("fc.",))
    assert torch.equal(target.weight, network.weight)
    assert source.find() == hub / f"linear-{digest}.pth"


def test_a_download_with_other_content_than_its_name_promises_leaves_nothing(server, hub):
    folder, address = server
    torch.save(nn.Linear(3, 4).state_dict(), folder / "linear-00000000.pth")
    with pytest.raises(UsageError, match=r"invalid hash.*put linear-00000000\.pth into"):
        initialise(nn.Linear(3, 4), Pretrained("l", f"{address}/linear-00000000.pth"), {}, ignored=("fc.",))
    assert not list(hub.iterdir())

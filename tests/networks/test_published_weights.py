"""Search for published weights in the caches, and their download from a local server."""

import functools
import hashlib
import http.server
import threading

import pytest
import torch
from torch import nn

from domainbed.errors import UsageError, describe
from domainbed.hparams_registry import default_hparams
from domainbed.networks import Featurizer, ResNet
from domainbed.networks.published import Pretrained, of_timm, of_torchvision
from domainbed.networks.weights import initialise

HPARAMS = default_hparams("ERM", "PACS")


def test_timms_weights_are_read_from_the_hugging_face_cache(tmp_path, monkeypatch):
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
    found = ResNet((3, 32, 32), HPARAMS)
    assert torch.equal(found.network.layer4[2].conv3.weight, network.layer4[2].conv3.weight)
    assert found.provenance["name"] == "timm resnet50.ram_in1k"


def test_weights_of_torchvision_are_found_by_tag():
    assert of_torchvision("resnet50", "IMAGENET1K_V2") == Pretrained(
        "torchvision resnet50 (IMAGENET1K_V2)",
        "https://download.pytorch.org/models/resnet50-11ad3fa6.pth",
        ("resnet50-11ad3fa6.pth",),
    )
    with pytest.raises(UsageError, match="no weights 'IMAGENET1K_V2' of resnet18") as caught:
        of_torchvision("resnet18", "IMAGENET1K_V2")
    assert "Did you mean IMAGENET1K_V1?" in describe(caught.value)


def test_weights_of_timm_are_found_by_tag_and_have_several_file_names():
    pytest.importorskip("timm")
    assert of_timm("resnet50").name == "timm resnet50.a1_in1k"
    augmix = of_timm("resnet50.ram_in1k")
    assert augmix.url.endswith("/timm/resnet50.ram_in1k/resolve/main/model.safetensors")
    # The last is the name in earlier releases of timm.
    names = ("resnet50.ram_in1k.safetensors", "resnet50.ram_in1k.pth", "resnet50_ram-a26f946b.pth")
    assert augmix.files == names
    with pytest.raises(UsageError, match="no weights 'ram_in1' of resnet50") as caught:
        of_timm("resnet50.ram_in1")
    assert "Did you mean ram_in1k" in describe(caught.value)
    with pytest.raises(UsageError, match="Network of timm not found: resnet51"):
        of_timm("resnet51")


def test_unpublished_weights_cannot_be_downloaded():
    with pytest.raises(UsageError, match=r'no weights of x were published; name a file .*"weights_file"'):
        Pretrained("x", "", ()).download()


@pytest.fixture
def server(tmp_path):
    """A served folder, and its address."""
    (tmp_path / "www").mkdir()

    class Handler(http.server.SimpleHTTPRequestHandler):
        def log_message(self, *args):
            pass

    handler = functools.partial(Handler, directory=tmp_path / "www")
    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), handler) as httpd:
        threading.Thread(target=httpd.serve_forever, args=(0.01,), daemon=True).start()
        yield tmp_path / "www", f"http://127.0.0.1:{httpd.server_address[1]}"
        httpd.shutdown()


def test_downloads_go_to_the_hub_cache(server, hub, tmp_path):
    folder, address = server
    network, target = nn.Linear(3, 4), nn.Linear(3, 4)
    torch.save(network.state_dict(), tmp_path / "w.pth")
    digest = hashlib.sha256((tmp_path / "w.pth").read_bytes()).hexdigest()[:8]
    (tmp_path / "w.pth").rename(folder / f"linear-{digest}.pth")
    source = Pretrained("linear", f"{address}/linear-{digest}.pth", (f"linear-{digest}.pth",))
    initialise(target, source, {}, ignored=("fc.",))
    assert torch.equal(target.weight, network.weight)
    assert source.find() == hub / f"linear-{digest}.pth"


def test_a_download_that_does_not_match_the_hash_in_its_name_is_removed(server, hub):
    folder, address = server
    torch.save(nn.Linear(3, 4).state_dict(), folder / "linear-00000000.pth")
    source = Pretrained("l", f"{address}/linear-00000000.pth", ("linear-00000000.pth",))
    with pytest.raises(UsageError, match=r"invalid hash.*put linear-00000000\.pth into"):
        initialise(nn.Linear(3, 4), source, {}, ignored=("fc.",))
    assert not list(hub.iterdir())


def test_timms_weights_are_downloaded_from_their_repository(server, hub, monkeypatch):
    timm, constants = pytest.importorskip("timm"), pytest.importorskip("huggingface_hub.constants")
    from safetensors.torch import save_file

    folder, address = server
    template = constants.HUGGINGFACE_CO_URL_TEMPLATE.replace(constants.ENDPOINT, address)
    monkeypatch.setattr(constants, "HUGGINGFACE_CO_URL_TEMPLATE", template)
    monkeypatch.setattr(constants, "HF_HUB_CACHE", str(hub / "nothing"))
    published = folder / "timm/test_resnet.r160_in1k/resolve/main"
    published.mkdir(parents=True)
    network = timm.create_model("test_resnet")
    save_file(network.state_dict(), published / "model.safetensors")
    for _ in range(2):
        found = Featurizer((3, 32, 32), HPARAMS | {"featurizer": "timm:test_resnet"})
        assert torch.equal(found.network.conv1[0].weight, network.conv1[0].weight)
        (published / "model.safetensors").unlink(missing_ok=True)  # now in the hub cache
    assert found.provenance["name"] == "timm test_resnet.r160_in1k"
    assert [file.name for file in hub.iterdir()] == ["test_resnet.r160_in1k.safetensors"]

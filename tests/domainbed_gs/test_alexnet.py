import pytest
import torch
from torch import nn
from torchvision.models import alexnet

from domainbed.errors import UsageError
from domainbed.networks import FEATURIZERS, Classifier
from domainbed_gs.alexnet import AlexNet


@pytest.fixture(scope="module")
def scratch():
    return AlexNet((3, 224, 224), {"pretrained": False})


@pytest.mark.parametrize(("classes", "parameters"), [(5, 57_024_325), (7, 57_032_519), (65, 57_270_145)])
def test_number_of_parameters(scratch, classes, parameters):
    assert scratch.n_outputs == 4096
    network = nn.Sequential(scratch, Classifier(scratch.n_outputs, classes))
    assert sum(p.numel() for p in network.parameters()) == parameters


def test_weights_are_read_from_the_hub_cache(tmp_path, monkeypatch):
    monkeypatch.setenv("TORCH_HOME", str(tmp_path))
    (tmp_path / "hub" / "checkpoints").mkdir(parents=True)
    torch.manual_seed(5)
    theirs = alexnet().eval()
    # The published file has the format of old releases of torch.
    path = tmp_path / "hub" / "checkpoints" / "alexnet-owt-7be5be79.pth"
    torch.save(theirs.state_dict(), path, _use_new_zipfile_serialization=False)
    ours = AlexNet((3, 224, 224), {"layout": "plain"}).eval()
    x = torch.randn(2, 3, 224, 224)
    with torch.no_grad():
        assert torch.equal(theirs.classifier[6](ours(x)), theirs(x))


def test_the_plugin_registers_alexnet():
    assert FEATURIZERS["alexnet"] is AlexNet


def test_small_images_are_rejected():
    with pytest.raises(UsageError, match="63 pixels or more"):
        AlexNet((3, 32, 32), {"pretrained": False})

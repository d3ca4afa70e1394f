import pytest
import torch

from domainbed.errors import UsageError
from domainbed.networks import DinoV2, dinov2
from domainbed.networks.dinov2 import position_embedding

timm = pytest.importorskip("timm")

HPARAMS = {"vit_dropout": 0.0, "vit_attn_tune": True, "pretrained": False}


@pytest.fixture(scope="module")
def shallow():
    """Five of the twelve blocks on 3 x 3 patches, with layer scales of 1, so that every block matters."""
    torch.manual_seed(0)
    featurizer = DinoV2((3, 42, 42), HPARAMS).eval()
    network = featurizer.network
    network.blocks = network.blocks[:5]
    network.pos_embed = torch.nn.Parameter(torch.randn(1, 1 + 3 * 3, 768), requires_grad=False)
    network.patch_embed.strict_img_size = False
    for name, parameter in featurizer.named_parameters():
        if name.endswith("gamma"):
            torch.nn.init.ones_(parameter)
    return featurizer


def test_features_are_those_of_the_last_layers(shallow):
    x = torch.randn(2, 3, 42, 42)
    with torch.no_grad():
        layers = shallow.network.forward_intermediates(
            x, indices=4, return_prefix_tokens=True, norm=True, intermediates_only=True
        )
        expected = [token[:, 0] for _, token in layers] + [layers[-1][0].mean(dim=(2, 3))]
        torch.testing.assert_close(shallow(x), torch.cat(expected, dim=1), rtol=1e-5, atol=1e-5)


def test_only_attention_layers_are_trained(shallow):
    trained = {name for name, p in shallow.network.named_parameters() if p.requires_grad}
    assert trained == {name for name, _ in shallow.network.named_parameters() if ".attn." in name}
    assert trained


def test_position_embeddings_are_interpolated_at_dinov2s_scale():
    ramp = torch.arange(37.0)
    grid = torch.stack([ramp[:, None].expand(37, 37), ramp[None, :].expand(37, 37)], dim=-1)
    trained = torch.cat([torch.full((1, 2), -7.0), grid.reshape(-1, 2)])[None]
    assert position_embedding(trained, 37, 37) is trained
    found = position_embedding(trained, 16, 12)
    assert found.shape == (1, 1 + 16 * 12, 2)
    assert found[0, 0].tolist() == [-7.0, -7.0]
    rows, columns = found[0, 1:].reshape(16, 12, 2).unbind(-1)
    # torch's bicubic interpolation keeps a ramp to 0.05; at the scales 16 / 37 and 12 / 37 it is off by 0.15.
    assert rows[12, 5].item() == pytest.approx(12.5 * 37 / 16.1 - 0.5, abs=0.05)
    assert columns[5, 9].item() == pytest.approx(9.5 * 37 / 12.1 - 0.5, abs=0.05)


def test_weights_are_read_from_the_hub_cache(hub, monkeypatch):
    """For a smaller network of the family. The authors' file also has a mask token, which is skipped."""
    monkeypatch.setattr(dinov2, "NAME", "vit_small_patch14_dinov2.lvd142m")
    network = timm.create_model("vit_small_patch14_dinov2", num_classes=0)
    state = network.state_dict() | {"mask_token": torch.zeros(1, 384)}
    torch.save(state, hub / "vit_small_patch14_dinov2.lvd142m.pth")
    found = DinoV2((3, 98, 98), HPARAMS | {"pretrained": True})
    assert found.n_outputs == 5 * 384
    assert all(torch.equal(value, state[name]) for name, value in found.network.state_dict().items())
    assert found.provenance["name"] == "timm vit_small_patch14_dinov2.lvd142m"
    assert found(torch.randn(1, 3, 98, 98)).shape == (1, 5 * 384)


def test_other_weights_are_rejected():
    with pytest.raises(UsageError, match=r"dinov2 only has the weights lvd142m, not 'IMAGENET1K_V1'"):
        DinoV2((3, 42, 42), HPARAMS | {"weights": "IMAGENET1K_V1"})


@pytest.mark.parametrize("shape", [(1, 224, 224), (3, 225, 224), (3, 224, 100)])
def test_shapes_that_are_not_whole_patches_are_rejected(shape):
    with pytest.raises(UsageError, match="multiples of 14"):
        DinoV2(shape, HPARAMS)

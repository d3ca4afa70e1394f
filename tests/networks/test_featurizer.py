"""Selection of a run's featurizer, and the MLP."""

import subprocess
import sys

import pytest
import torch

from domainbed import networks
from domainbed.errors import UnknownName, UsageError, describe
from domainbed.hparams import OPTIONS, option
from domainbed.networks.featurizer import by_shape


@pytest.mark.parametrize(
    ("shape", "hparams", "name"),
    [
        ((5,), {}, "mlp"),
        ((2, 8, 8), {}, "mlp"),
        ((2, 14, 14), {}, "mlp"),
        ((2, 28, 28), {}, "mnist_cnn"),
        ((3, 32, 32), {}, "wide_resnet"),
        ((3, 64, 64), {}, "small_cnn"),
        ((3, 224, 224), {}, "resnet"),
        ((3, 224, 224), {"vit": False, "dinov2": True}, "resnet"),
        ((3, 224, 224), {"vit": True, "dinov2": True}, "dinov2"),
        ((3, 28, 28), {"vit": True}, "mnist_cnn"),
    ],
)
def test_the_shape_selects_the_default_featurizer(shape, hparams, name):
    assert by_shape(shape, hparams) == name


def test_a_name_overrides_the_shape_and_shapes_may_be_lists():
    assert isinstance(networks.Featurizer([3, 28, 28], {}), networks.MNIST_CNN)
    assert isinstance(networks.Featurizer([3, 28, 28], {"featurizer": "small_cnn"}), networks.SmallCNN)


@pytest.mark.parametrize("shape", [(3, 50, 50), (3, 28), (), (1, 2, 3, 4)])
def test_the_error_for_an_unknown_shape_lists_the_known_ones(shape):
    with pytest.raises(
        UsageError, match=r"8x8, 14x14, 28x28, 32x32, 64x64, 224x224.*\"featurizer\".*small_cnn"
    ):
        networks.Featurizer(shape, {})
    with pytest.raises(NotImplementedError):  # upstream's
        networks.Featurizer(shape, {})


def test_vit_without_dinov2_is_rejected():
    with pytest.raises(NotImplementedError, match="dinov2"):
        networks.Featurizer((3, 224, 224), {"vit": True, "dinov2": False})


def test_a_misspelt_featurizer_is_corrected():
    with pytest.raises(UnknownName) as caught:
        networks.Featurizer((3, 28, 28), {"featurizer": "resnet81"})
    assert describe(caught.value).startswith("error: Featurizer not found: resnet81. Did you mean resnet18")


def test_the_mlp_has_default_hyper_parameters():
    default = networks.Featurizer((7,), {})
    assert (default.n_outputs, len(default.hiddens), default.dropout.p) == (256, 1, 0.0)
    other = networks.Featurizer((7,), {"mlp_width": 12, "mlp_depth": 5, "mlp_dropout": 0.5})
    assert (other.n_outputs, len(other.hiddens), other.dropout.p) == (12, 3, 0.5)
    with pytest.raises(UsageError, match=r"hyper-parameter mlp_dropout must be at most 1, not 1\.5"):
        networks.Featurizer((7,), {"mlp_dropout": 1.5})


def test_the_mlp_applies_linear_dropout_and_relu_in_this_order():
    torch.manual_seed(0)
    mlp = networks.MLP(4, 3, {"mlp_width": 5, "mlp_depth": 3}).eval()
    x = torch.randn(6, 4)
    expected = mlp.output(mlp.hiddens[0](mlp.input(x).relu()).relu())
    assert torch.equal(mlp(x), expected)
    assert [name for name, _ in mlp.named_children()] == [
        "input",
        "dropout",
        "hiddens",
        "output",
        "activation",
    ]


def test_the_mlp_flattens_images():
    torch.manual_seed(0)
    pixels = networks.Featurizer((2, 3, 4), {"featurizer": "mlp"})
    torch.manual_seed(0)
    vector = networks.Featurizer((24,), {})
    x = torch.randn(5, 2, 3, 4)
    assert torch.equal(pixels(x), vector(x.flatten(1)))
    assert list(pixels.state_dict()) == list(vector.state_dict())


def test_optional_hyper_parameters_have_defaults():
    assert option({}, "pretrained") is True
    assert option({"pretrained": False}, "pretrained") is False
    assert {"featurizer", "pretrained", "weights_file", "parity_init"} <= set(OPTIONS)


def test_importing_the_package_needs_no_torch():
    code = "import sys, domainbed.networks; sys.exit('torch' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0


def test_unknown_attributes_raise():
    with pytest.raises(AttributeError, match="NoSuchNetwork"):
        networks.NoSuchNetwork  # noqa: B018

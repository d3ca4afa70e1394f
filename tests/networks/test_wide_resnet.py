import pytest
import torch
from torch import nn

from domainbed.networks import wide_resnet


def test_upstreams_names_are_importable_from_upstreams_path():
    network = wide_resnet.Wide_ResNet((3, 32, 32), 10, 1, 0.0)
    assert isinstance(network.layer2[0], wide_resnet.wide_basic)
    assert network.n_outputs == 64
    with pytest.raises(AssertionError, match="6n"):
        wide_resnet.Wide_ResNet((3, 32, 32), 15, 2, 0.0)


def test_conv_init_is_xavier():
    block = wide_resnet.wide_basic(16, 32, 0.0, stride=2)
    nn.init.zeros_(block.bn1.weight)
    block.apply(wide_resnet.conv_init)
    assert not block.conv1.bias.any()
    assert (block.bn1.weight == 1).all()
    # Xavier's bound with gain sqrt(2): sqrt(2) * sqrt(6 / (fan in + fan out)).
    bound = 2**0.5 * (6 / (9 * (16 + 32))) ** 0.5
    assert 0.95 * bound < block.conv1.weight.abs().max() <= bound


def test_features_depend_on_all_of_a_larger_image():
    network = wide_resnet.Wide_ResNet((3, 64, 64), 10, 1, 0.0).eval()
    x = torch.randn(1, 3, 64, 64, requires_grad=True)
    network(x).sum().backward()
    assert x.grad[..., -1, -1].abs().sum() > 0

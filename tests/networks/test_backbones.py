"""Memory layout of images, input channels, and which backbones they apply to."""

import pytest
import torch
from torch import nn

from domainbed.algorithms import get_algorithm_class
from domainbed.errors import UsageError
from domainbed.hparams_registry import default_hparams
from domainbed.networks import FEATURIZERS
from domainbed.networks.backbones import with_channels

SHAPES = {"alexnet": (3, 64, 64), "resnet18": (3, 32, 32)}


def first_gradients(name, featurizer, layout):
    """Gradients (P,) of the first update; whether inputs of the first convolution had channels innermost."""
    torch.manual_seed(0)
    network = {"featurizer": featurizer, "pretrained": False, "freeze_bn": True, "layout": layout}
    hparams = default_hparams(name, "PACS") | network
    if "rules" in hparams:
        hparams["rules"] = "plain"  # not compiled, which would take most of the test's time
    algorithm = get_algorithm_class(name)(SHAPES[featurizer], 4, 2, hparams)
    convolution = next(layer for layer in algorithm.modules() if isinstance(layer, nn.Conv2d))
    seen = []
    convolution.register_forward_pre_hook(
        lambda _, inputs: seen.append(inputs[0].is_contiguous(memory_format=torch.channels_last))
    )
    algorithm.update([(torch.randn(2, *SHAPES[featurizer]), torch.randint(4, (2,))) for _ in range(2)])
    return torch.cat([parameter.grad.flatten() for parameter in algorithm.network.parameters()]), seen


@pytest.mark.parametrize("featurizer", SHAPES)
@pytest.mark.parametrize("name", ["ERM", "AgrSum", "PCGrad"])
def test_gradients_do_not_depend_on_the_layout(name, featurizer):
    plain, plain_layouts = first_gradients(name, featurizer, "plain")
    innermost, innermost_layouts = first_gradients(name, featurizer, "auto")
    assert (any(plain_layouts), all(innermost_layouts)) == (False, True)
    if name == "AgrSum":
        # Rounding errors can flip the sign of a gradient near 0, which decides whether the sum is kept.
        assert ((plain != 0) != (innermost != 0)).float().mean() < 1e-3
        plain, innermost = plain * (innermost != 0), innermost * (plain != 0)
    torch.testing.assert_close(innermost, plain, rtol=1e-3, atol=1e-5 * plain.abs().max().item())


def test_an_unknown_layout_is_rejected():
    with pytest.raises(UsageError, match="layout must be one of auto, plain, not 'plane'"):
        FEATURIZERS["alexnet"]((3, 64, 64), {"pretrained": False, "layout": "plane"})


@pytest.mark.parametrize("channels", [1, 2, 3, 5])
def test_with_channels_repeats_the_weights_of_the_input_channels(channels):
    conv = nn.Conv2d(3, 8, 7, stride=2, padding=3, bias=False)
    new = with_channels(conv, channels)
    assert (new is conv) == (channels == 3)
    assert (new.stride, new.padding, new.bias) == (conv.stride, conv.padding, None)
    for i in range(channels):
        assert torch.equal(new.weight[:, i], conv.weight[:, i % 3])
    assert new(torch.randn(1, channels, 16, 16)).shape == (1, 8, 8, 8)


def test_with_channels_keeps_a_bias():
    conv = nn.Conv2d(3, 4, 3)
    assert torch.equal(with_channels(conv, 2).bias, conv.bias)

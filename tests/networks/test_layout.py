"""Images with channels innermost give the features, gradients and random draws of images as they come."""

import pytest
import torch

from domainbed.algorithms import get_algorithm_class
from domainbed.errors import UsageError
from domainbed.hparams_registry import default_hparams
from domainbed.networks import FEATURIZERS

SHAPES = {"alexnet": (3, 64, 64), "resnet18": (3, 32, 32)}


def first_gradients(name, featurizer, layout):
    """Gradients (P,) of the first step, and whether the first convolution's inputs had channels innermost."""
    torch.manual_seed(0)
    network = {"featurizer": featurizer, "pretrained": False, "freeze_bn": True, "layout": layout}
    hparams = default_hparams(name, "PACS") | network
    algorithm = get_algorithm_class(name)(SHAPES[featurizer], 4, 2, hparams)
    convolution = next(layer for layer in algorithm.modules() if isinstance(layer, torch.nn.Conv2d))
    seen = []
    convolution.register_forward_pre_hook(
        lambda _, inputs: seen.append(inputs[0].is_contiguous(memory_format=torch.channels_last))
    )
    algorithm.update([(torch.randn(2, *SHAPES[featurizer]), torch.randint(4, (2,))) for _ in range(2)])
    return torch.cat([parameter.grad.flatten() for parameter in algorithm.network.parameters()]), seen


@pytest.mark.parametrize("featurizer", SHAPES)
@pytest.mark.parametrize("name", ["ERM", "AgrSum", "PCGrad"])
def test_gradients_are_the_same_up_to_rounding(name, featurizer):
    plain, plainly = first_gradients(name, featurizer, "plain")
    laid_out, innermost = first_gradients(name, featurizer, "auto")
    assert (any(plainly), all(innermost)) == (False, True)
    if name == "AgrSum":
        # Rounding may flip the sign of a gradient near 0, whose sum over environments is then kept or not.
        assert ((plain != 0) != (laid_out != 0)).float().mean() < 1e-3
        plain, laid_out = plain * (laid_out != 0), laid_out * (plain != 0)
    torch.testing.assert_close(laid_out, plain, rtol=1e-3, atol=1e-5 * plain.abs().max().item())


def test_an_unknown_layout_is_refused():
    with pytest.raises(UsageError, match="layout is one of auto, plain, not 'plane'"):
        FEATURIZERS["alexnet"]((3, 64, 64), {"pretrained": False, "layout": "plane"})

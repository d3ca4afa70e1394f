"""SagNet: randomised styles and contents, and the three steps of an update."""

import pytest
import torch

from domainbed.algorithms import get_algorithm_class
from domainbed.hparams_registry import default_hparams

SagNet = get_algorithm_class("SagNet")


def features(*shape, seed=0):
    generator = torch.Generator().manual_seed(seed)
    return torch.randn(*shape, generator=generator, dtype=torch.float64) * 3 + 1


def randomized(x, what):
    """The result, the interpolation weights and the other samples that were drawn."""
    torch.manual_seed(5)
    result = SagNet.randomize(x, what)
    after = torch.rand(1)
    torch.manual_seed(5)
    share, other = torch.rand(len(x), 1).double(), torch.randperm(len(x))
    assert torch.equal(torch.rand(1), after)  # nothing else is drawn
    return result, share, other


def statistics(x):
    """Mean and unbiased variance of each row or channel."""
    rows = x.reshape(*x.shape[:2], -1) if x.dim() > 2 else x
    return rows.mean(dim=-1), rows.var(dim=-1)


def standardized(x):
    rows = x.reshape(*x.shape[:2], -1) if x.dim() > 2 else x
    mean, variance = (each.unsqueeze(-1) for each in statistics(x))
    return (rows - mean) / variance.sqrt()


@pytest.mark.parametrize("shape", [(6, 32), (6, 3, 4, 5)])
def test_styles_are_interpolated_with_another_samples_and_contents_are_unchanged(shape):
    x = features(*shape)
    result, share, other = randomized(x, "style")
    assert result.shape == x.shape
    for own, new in zip(statistics(x), statistics(result), strict=True):
        share = share.view(-1, *[1] * (own.dim() - 1))
        torch.testing.assert_close(new, share * own + (1 - share) * own[other], rtol=1e-4, atol=1e-4)
    torch.testing.assert_close(standardized(result), standardized(x), rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize("shape", [(6, 32), (6, 3, 4, 5)])
def test_contents_are_another_samples_and_styles_are_unchanged(shape):
    x = features(*shape)
    result, _, other = randomized(x, "content")
    assert result.shape == x.shape
    for own, new in zip(statistics(x), statistics(result), strict=True):
        torch.testing.assert_close(new, own, rtol=1e-4, atol=1e-4)
    torch.testing.assert_close(standardized(result), standardized(x)[other], rtol=1e-4, atol=1e-4)


def test_changed_contents_are_detached():
    x = features(6, 32).requires_grad_()
    result, _, other = randomized(x, "content")
    changed = next(i for i in range(6) if other[i] != i)
    (gradient,) = torch.autograd.grad(result[changed].square().sum(), x)
    assert gradient[changed].abs().sum() > 0  # through its style
    assert gradient[torch.arange(6) != changed].eq(0).all()


def test_statistics_keep_full_precision_under_autocast():
    x = (features(4, 64) * 0.01 + 30).bfloat16()
    with torch.autocast("cpu", dtype=torch.bfloat16):
        torch.manual_seed(5)
        result = SagNet.randomize(x, "style")
    expected, _, _ = randomized(x.double(), "style")
    assert result.dtype == torch.float32
    torch.testing.assert_close(result.double(), expected, rtol=1e-5, atol=1e-5)


def make(**overrides):
    torch.manual_seed(0)
    hparams = default_hparams("SagNet", "Debug28") | {"mlp_width": 16, "weight_decay": 0.0} | overrides
    return SagNet((5,), 3, 2, hparams)


def test_an_update_takes_two_steps_of_the_featurizer_and_one_of_each_classifier():
    sagnet = make()
    torch.manual_seed(1)
    sagnet.update([(torch.randn(n, 5), torch.arange(n) % 3) for n in (6, 4)])
    steps = [
        {int(state["step"]) for state in optimizer.state_dict()["state"].values()}
        for optimizer in (sagnet.optimizer_f, sagnet.optimizer_c, sagnet.optimizer_s)
    ]
    assert steps == [{2}, {1}, {1}]


def test_the_adversarial_loss_is_minimal_for_uniform_predictions_of_the_style_network():
    sagnet = make(sag_w_adv=2.0)
    with torch.no_grad():
        sagnet.network_s.weight.zero_()
        sagnet.network_s.bias.zero_()
    sagnet.optimizer_s.param_groups[0]["lr"] = 0.0
    values = sagnet.update([(torch.randn(6, 5), torch.arange(6) % 3)])
    assert float(values["loss_adv"]) == pytest.approx(2 * torch.tensor(3.0).log().item(), rel=1e-5)

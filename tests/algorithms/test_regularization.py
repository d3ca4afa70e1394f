import numpy as np
import pytest
import torch
import torch.nn.functional as F
from hypothesis import given, settings
from hypothesis import strategies as st

from domainbed.algorithms.regularization import RSC, SD
from domainbed.hparams_registry import default_hparams


def make(cls, width=8, **overrides):
    torch.manual_seed(0)
    hparams = default_hparams(cls.__name__, "Debug28") | {"featurizer": "mlp", "mlp_width": width}
    return cls((5,), 3, 2, hparams | overrides)


@settings(deadline=None, max_examples=30)
@given(st.integers(2, 40), st.integers(1, 20), st.floats(0, 0.5), st.integers(0, 100))
def test_rsc_drops_features_with_the_largest_gradients_in_the_most_affected_samples(width, n, factor, seed):
    rsc = make(RSC, width=width, rsc_f_drop_factor=factor, rsc_b_drop_factor=factor)
    torch.manual_seed(seed)
    features, y = torch.randn(n, width), torch.randint(3, (n,))
    kept = rsc._mask(features, y)
    whole = kept.all(1)
    # The number of values below NumPy's percentile is its position, rounded up.
    assert abs(whole.sum().item() - np.ceil((1 - factor) * (n - 1))) <= 1
    share = kept[~whole].sum(1)
    assert (share - np.ceil((1 - factor) * (width - 1))).abs().le(1).all()
    # The gradient of the true class's logit is its row of the classifier.
    gradient = rsc.classifier.weight[y]
    for row, mask in zip(gradient[~whole], kept[~whole], strict=True):
        assert not mask.any() or row[mask].max() < row[~mask].min()


def test_rsc_with_zero_fractions_still_drops_one_feature_of_one_sample():
    rsc = make(RSC, rsc_f_drop_factor=0.0, rsc_b_drop_factor=0.0)
    torch.manual_seed(1)
    kept = rsc._mask(torch.randn(6, 8), torch.randint(3, (6,)))
    assert kept.sum() == 6 * 8 - 1


def test_rscs_quantiles_equal_numpys_percentiles():
    torch.manual_seed(0)
    values = torch.randn(50, 128, dtype=torch.float64)
    for drop in (0.0, 37.2, 200 / 3, 100.0):
        expected = np.percentile(values.numpy(), drop, axis=1)
        np.testing.assert_allclose(torch.quantile(values, drop / 100, dim=1), expected, rtol=1e-12)


@pytest.mark.parametrize("reg", [0.0, 0.7])
def test_sds_gradient_is_that_of_its_objective(reg, float64):
    """Finite differences in a random direction."""
    sd = make(SD, sd_reg=reg)
    data = [(torch.randn(n, 5), torch.randint(3, (n,))) for n in (6, 4)]
    x, y = (torch.cat(parts) for parts in zip(*data, strict=True))

    @torch.no_grad()
    def objective():
        logits = sd.predict(x)
        return (F.cross_entropy(logits, y) + reg * (logits**2).mean()).item()

    parameters = list(sd.network.parameters())
    before = [p.detach().clone() for p in parameters]
    returned = sd.update(data)
    differences = []
    directions = [torch.randn_like(p) for p in parameters]
    for sign in (1, -1):
        for parameter, value, direction in zip(parameters, before, directions, strict=True):
            parameter.data = value + sign * 1e-6 * direction
        differences.append(objective())
    slope = sum((p.grad * d).sum().item() for p, d in zip(parameters, directions, strict=True))
    assert slope == pytest.approx((differences[0] - differences[1]) / 2e-6, rel=1e-5)
    assert returned["loss"] + reg * returned["penalty"] == pytest.approx(np.mean(differences), rel=1e-6)

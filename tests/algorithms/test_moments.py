import numpy as np
import pytest
import torch

from domainbed.algorithms.moments import covariance, mean, variance
from domainbed.errors import UsageError


def test_moments_are_numpys_unbiased_ones():
    x = torch.randn(7, 3, dtype=torch.float64, generator=torch.Generator().manual_seed(0))
    np.testing.assert_allclose(mean(x), np.mean(x.numpy(), axis=0))
    np.testing.assert_allclose(variance(x), np.var(x.numpy(), axis=0, ddof=1))
    np.testing.assert_allclose(covariance(x), np.cov(x.numpy(), rowvar=False))


@pytest.mark.parametrize("statistic", [mean, variance, covariance])
def test_bfloat16_samples_under_autocast_have_moments_in_float32(statistic):
    x = torch.randn(9, 4, generator=torch.Generator().manual_seed(1)).bfloat16()
    with torch.autocast("cpu", dtype=torch.bfloat16):
        found = statistic(x)
    assert found.dtype == torch.float32
    torch.testing.assert_close(found, statistic(x.float()), rtol=0, atol=0)


@pytest.mark.parametrize(("statistic", "what"), [(variance, "a variance"), (covariance, "a covariance")])
def test_one_sample_has_no_second_moment(statistic, what):
    with pytest.raises(
        UsageError, match=f"{what} needs 2 or more samples, not 1; choose a larger batch_size"
    ):
        statistic(torch.zeros(1, 3))

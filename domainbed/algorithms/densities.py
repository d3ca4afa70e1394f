"""Distributions of one real variable, fitted to samples and differentiable by them.

EQRM takes a quantile of a kernel density estimate of the environments' risks (arXiv 2207.09944). A quantile
is named by a number q: if q is between 0 and 1, the probability below the quantile; if q is negative, the
logarithm of the probability above it, for quantiles whose probability is too close to 1 to be represented.
Nothing here waits for the device.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence

import numpy as np
import torch
from torch import Tensor, nn

from domainbed.errors import UsageError, check_choice

EPS = 1e-16
"""Added to a variance, so that the derivative of its square root is finite."""


class Kernel(nn.Module):
    """Base class of the kernels of density estimates.

    Args:
        bw: bandwidth; 0.05 by default.
    """

    def __init__(self, bw: Tensor | float | None = None) -> None:
        super().__init__()
        self.bw = 0.05 if bw is None else bw

    def forward(self, test: Tensor, train: Tensor) -> Tensor:
        """Density (m,) at the points `test` (m,), estimated from training points (n,)."""
        raise NotImplementedError

    def cdf(self, test: Tensor, train: Tensor) -> Tensor:
        """Mean probability (0-d) below the points `test`, estimated from training points (n,)."""
        raise NotImplementedError

    def sample(self, train: Tensor) -> Tensor:
        """One draw (n,) from the kernel at each of the training points (n,)."""
        raise NotImplementedError


class GaussianKernel(Kernel):
    """Gaussian kernel with standard deviation `bw`. `sample` draws from torch's global generator."""

    def forward(self, test: Tensor, train: Tensor) -> Tensor:
        heights = torch.exp(-self._standardised(test, train).square() / 2)
        return heights.mean(dim=1) / (self.bw * math.sqrt(2 * math.pi))

    def cdf(self, test: Tensor, train: Tensor) -> Tensor:
        below: Tensor = torch.special.ndtr(self._standardised(test, train))
        return below.mean()

    def sample(self, train: Tensor) -> Tensor:
        return train + torch.randn_like(train) * self.bw

    def _standardised(self, test: Tensor, train: Tensor) -> Tensor:
        """Differences (m, n) in bandwidths.

        `test` becomes a column: as a 0-d tensor, a float64 number would be rounded to the dtype of `train`.
        """
        return (test.reshape(-1, 1) - train.flatten()) / self.bw


def estimate_bandwidth(x: Tensor, method: str = "silverman") -> Tensor:
    """Bandwidth (0-d) of a Gaussian kernel for the points x (n,).

    Args:
        x: points.
        method: "silverman" for 0.9 min(std, IQR / 1.34) n^(-1/5), or "Gauss-optimal" for 1.06 std n^(-1/5).

    Raises: UsageError (a ValueError) for another method, or fewer than two points.
    """
    check_choice("the bandwidth's method is", method.lower(), ("silverman", "gauss-optimal"))
    if len(x) < 2:
        raise UsageError(f"a bandwidth needs 2 or more points, not {len(x)}")
    std, factor = x.std(), float(len(x) ** -0.2)
    if method.lower() == "gauss-optimal":
        return 1.06 * factor * std
    interquartile_range = torch.quantile(x, 0.75) - torch.quantile(x, 0.25)
    return 0.9 * factor * torch.minimum(std, interquartile_range / 1.34)


class KernelDensityEstimator(nn.Module):
    """Kernel density estimate of one real variable. Calling it returns densities.

    Args:
        train_Xs: points (n,); also an attribute.
        kernel: "gaussian", the only choice.
        bw_select: method of `estimate_bandwidth`; None for the kernel's default bandwidth.

    Attributes:
        bw: bandwidth.
        kernel: the `Kernel`.
        device: device of the points.
    """

    def __init__(
        self, train_Xs: Tensor, kernel: str = "gaussian", bw_select: str | None = "Gauss-optimal"
    ) -> None:
        super().__init__()
        check_choice("the kernel is", kernel.lower(), ("gaussian",))
        self.train_Xs = train_Xs
        self.kernel = GaussianKernel(None if bw_select is None else estimate_bandwidth(train_Xs, bw_select))
        self.bw = self.kernel.bw

    @property
    def device(self) -> torch.device:
        return self.train_Xs.device

    def forward(self, x: Tensor) -> Tensor:
        density: Tensor = self.kernel(x, self.train_Xs)
        return density

    def log_prob(self, x: Tensor) -> Tensor:
        """Logarithm of the density (m,) at the points x (m,)."""
        return self.forward(x).log()

    def cdf(self, x: Tensor) -> Tensor:
        """Mean probability (0-d) below the points x."""
        return self.kernel.cdf(x, self.train_Xs)

    def sample(self, n: int | Sequence[int]) -> Tensor:
        """`n` draws, or draws of the shape `n`.

        NumPy's global generator selects points, torch's draws from their kernels.
        """
        chosen = np.random.choice(len(self.train_Xs), size=n)
        return self.kernel.sample(self.train_Xs[torch.as_tensor(chosen)])


class Distribution1D:
    """A distribution of one real variable, with parameters that are estimated from samples.

    Args:
        dist_function: makes an object with `log_prob`, `cdf`, `icdf` and `sample` from `parameters`.
    """

    def __init__(self, dist_function: Callable[..., torch.distributions.Distribution] | None = None) -> None:
        self.dist_function = dist_function

    @property
    def parameters(self) -> Sequence[Tensor | float]:
        """Arguments of `dist_function`."""
        raise NotImplementedError

    def create_dist(self) -> torch.distributions.Distribution | KernelDensityEstimator:
        """The distribution with the current parameters."""
        if self.dist_function is None:
            raise NotImplementedError("no distribution function was given")
        return self.dist_function(*self.parameters)

    def estimate_parameters(self, x: Tensor) -> None:
        """Fit the parameters to the samples x (n,)."""
        raise NotImplementedError

    def log_prob(self, x: Tensor) -> Tensor:
        """Logarithm of the density at x."""
        return self.create_dist().log_prob(x)

    def cdf(self, x: Tensor) -> Tensor:
        """Probability below x."""
        return self.create_dist().cdf(x)

    def icdf(self, q: Tensor | float) -> Tensor:
        """The quantile named by q."""
        raise NotImplementedError

    def sample(self, n: int = 1) -> Tensor:
        """`n` draws, of shape (n,), or (0-d) for n = 1."""
        return self.create_dist().sample(torch.Size([] if n == 1 else [n]))

    def sample_n(self, n: int = 10) -> Tensor:
        """`n` draws."""
        return self.sample(n)


def continuous_bisect_fun_left(
    f: Callable[[Tensor], Tensor],
    v: Tensor | float,
    lo: Tensor | float,
    hi: Tensor | float,
    n_steps: int = 32,
) -> Tensor:
    """The point between lo and hi where the increasing function f reaches v, by bisection.

    The result is a weighted mean of lo and hi with constant weights: it is differentiable by lo and hi, not
    by f. The search ends when the middle of the interval no longer changes. All rounds are computed
    nevertheless, because a check would wait for the device.
    """
    lo, hi = _tensor(lo), _tensor(hi)
    middle = (lo + hi) / 2
    for _ in range(n_steps):
        with torch.no_grad():
            above = f(middle) > v
        lo, hi = torch.where(above, lo, middle), torch.where(above, middle, hi)
        following = (lo + hi) / 2
        # Equal middles can have different derivatives; keep those of the first.
        middle = torch.where(following == middle, middle, following)
    return middle


class Normal(Distribution1D):
    """Normal distribution.

    Args:
        location: mean.
        scale: standard deviation.
    """

    def __init__(self, location: Tensor | float = 0, scale: Tensor | float = 1) -> None:
        super().__init__(torch.distributions.Normal)
        self.location = location
        self.scale = scale

    @property
    def parameters(self) -> tuple[Tensor | float, Tensor | float]:
        return self.location, self.scale

    def estimate_parameters(self, x: Tensor) -> None:
        self.location = x.mean()
        self.scale = (x.var() + EPS).sqrt()

    def icdf(self, q: Tensor | float) -> Tensor:
        return self.location + self.scale * _standard_quantile(_tensor(q))


class Nonparametric(Distribution1D):
    """Kernel density estimate of the samples, or their empirical distribution.

    Args:
        use_kde: whether to use a kernel density estimate. Without it, only quantiles are available.
        bw_select: method of `estimate_bandwidth`.

    Attributes:
        data: the samples in ascending order.
        dist: the density estimate, if `use_kde`.
        bw: its bandwidth, of shape [1], if `use_kde`.
    """

    def __init__(self, use_kde: bool = True, bw_select: str | None = "Gauss-optimal") -> None:
        super().__init__()
        self.use_kde = use_kde
        self.bw_select = bw_select

    @property
    def parameters(self) -> tuple[Tensor]:
        return (self.data,)

    def create_dist(self) -> KernelDensityEstimator:
        if not self.use_kde:
            raise UsageError("samples alone have no density; use Nonparametric(use_kde=True)")
        return self.dist

    def estimate_parameters(self, x: Tensor) -> None:
        self.data = x.sort().values
        if self.use_kde:
            self.dist = KernelDensityEstimator(self.data, bw_select=self.bw_select)
            self.bw = torch.as_tensor(self.dist.bw, dtype=x.dtype, device=x.device).reshape(1)

    def icdf(self, q: Tensor | float) -> Tensor:
        """The quantile named by q.

        For a negative q it is the mean over the samples of the quantile of the kernel there. A float64 q
        makes the search float64, whatever the dtype of the samples.
        """
        q = torch.as_tensor(q, dtype=getattr(q, "dtype", self.data.dtype), device=self.data.device)
        if not self.use_kde:
            return torch.quantile(self.data, q.to(self.data.dtype))
        dtype = torch.promote_types(self.data.dtype, q.dtype)
        kernel_quantiles = self.data.to(dtype) + self.bw.to(dtype) * _standard_quantile(q)
        # The quantile of a mixture is between the smallest and the largest quantile of its components.
        central = continuous_bisect_fun_left(self.dist.cdf, q, kernel_quantiles[0], kernel_quantiles[-1])
        return torch.where(q < 0, kernel_quantiles.mean(), central)


def _standard_quantile(q: Tensor) -> Tensor:
    """The standard normal quantile named by q; for a negative q the approximation sqrt(-2 q)."""
    tail = q < 0
    # Both branches are computed, each with a valid q, because gradients of NaN would spread.
    central = torch.special.ndtri(torch.where(tail, 0.5, q))
    return torch.where(tail, torch.where(tail, -2 * q, 1.0).sqrt(), central)


def _tensor(value: Tensor | float) -> Tensor:
    """`value` as a tensor, float64 for a Python number."""
    return value if isinstance(value, Tensor) else torch.tensor(value, dtype=torch.float64)

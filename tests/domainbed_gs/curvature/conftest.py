"""A quadratic loss, whose sharpness is known in closed form."""

import pytest
import torch


class Quadratic:
    """a^T t + t^T H t / 2 in float64; implements `Loss`."""

    def __init__(self, hessian, slope):
        self.hessian, self.slope = hessian, slope

    def value(self, parameters):
        return float(self.slope @ parameters + parameters @ self.hessian @ parameters / 2)

    def add_gradient(self, parameters, out, factor=1.0):
        out.add_(self.slope + self.hessian @ parameters, alpha=factor)

    def add_hessian_product(self, parameters, vector, out, factor=1.0):
        out.add_(self.hessian @ vector, alpha=factor)


@pytest.fixture
def quadratic():
    """`quadratic(eigenvalues)`: a quadratic loss with a Hessian of these eigenvalues in a random basis."""

    def make(eigenvalues, seed=0):
        draws = torch.Generator().manual_seed(seed)
        values = torch.as_tensor(eigenvalues, dtype=torch.float64)
        basis, _ = torch.linalg.qr(
            torch.randn(len(values), len(values), generator=draws, dtype=torch.float64)
        )
        slope = torch.randn(len(values), generator=draws, dtype=torch.float64)
        return Quadratic(basis @ torch.diag(values) @ basis.T, slope)

    return make

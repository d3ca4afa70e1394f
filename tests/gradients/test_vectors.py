import pytest
import torch
from torch import nn

from domainbed.gradients.vectors import (
    BLOCK,
    Layout,
    add_to_values,
    flat,
    inner,
    norm,
    set_gradient,
    set_values,
    total,
)


@pytest.fixture
def parameters():
    return list(nn.Sequential(nn.Linear(4, 5), nn.Linear(5, 3, bias=False)).parameters())


def test_layout_gives_sizes_and_positions(parameters):
    layout = Layout(parameters)
    assert (layout.sizes, layout.starts, layout.size) == ([20, 5, 15], [0, 20, 25], 40)


def test_set_gradient_gives_each_parameter_a_view_of_its_part(parameters):
    gradient = torch.arange(40.0)
    set_gradient(parameters, gradient)
    assert torch.equal(torch.cat([p.grad.flatten() for p in parameters]), gradient)
    assert all(p.grad.shape == p.shape for p in parameters)
    gradient[0] = -1
    assert parameters[0].grad[0, 0] == -1


def test_set_values_copies(parameters):
    values = torch.arange(40.0)
    set_values(parameters, values)
    assert torch.equal(flat(parameters), values)
    values[0] = -1
    assert flat(parameters)[0] == 0


def test_total_of_one_or_more():
    assert total([torch.tensor([1.0, 2.0])]).tolist() == [1, 2]
    assert total(torch.full((2,), float(i)) for i in range(4)).tolist() == [6, 6]


def test_add_to_values_adds_a_multiple_of_a_direction(parameters):
    before = flat(parameters)
    add_to_values(parameters, torch.arange(40.0), torch.tensor(0.5, dtype=torch.float64))
    assert torch.equal(flat(parameters), before + 0.5 * torch.arange(40.0))


@pytest.mark.parametrize("length", [0, 1, BLOCK - 1, BLOCK, 3 * BLOCK + 5])
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_norms_and_inner_products_of_vectors_of_any_length(length, dtype):
    a, b = torch.randn(2, length, dtype=dtype, generator=torch.Generator().manual_seed(0))
    exact = a.double() @ b.double()
    assert norm(a).dtype == inner(a, b).dtype == torch.float64
    tolerance = 1e-6 if dtype == torch.float32 else 1e-14
    assert float(norm(a)) == pytest.approx(float(a.double().norm()), rel=tolerance)
    assert float(inner(a, b)) == pytest.approx(float(exact), abs=tolerance * float(a.norm() * b.norm()))


def test_the_norm_of_a_long_float32_vector_keeps_its_digits():
    # One float32 sum of as many squares is wrong by 1 % here.
    long = torch.full((2**24,), 0.1)
    assert float(norm(long)) == pytest.approx(2**12 * float(long[0]), rel=1e-4)

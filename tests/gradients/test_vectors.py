import pytest
import torch
from torch import nn

from domainbed.gradients.vectors import Layout, flat, set_gradient, set_values, total


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

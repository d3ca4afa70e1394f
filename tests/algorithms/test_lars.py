import copy

import pytest
import torch
from torch import nn

from domainbed.algorithms.lars import LARS


def parameter(values, gradient):
    made = nn.Parameter(torch.tensor(values, dtype=torch.float64))
    made.grad = torch.tensor(gradient, dtype=torch.float64)
    return made


def test_two_steps_by_hand():
    weight, bias = parameter([[3.0, 4.0]], [[0.0, 2.0]]), parameter([1.0], [0.5])
    optimizer = LARS([weight, bias], lr=0.1, weight_decay=0.5, momentum=0.9, trust_coefficient=0.01)
    optimizer.step()
    # g + wd * p = (1.5, 4), scaled by 0.01 * 5 / |g|; the bias is neither decayed nor scaled.
    first = torch.tensor([[1.5, 4.0]], dtype=torch.float64) * 0.01 * 5 / (1.5**2 + 16) ** 0.5
    torch.testing.assert_close(weight.detach(), torch.tensor([[3.0, 4.0]], dtype=torch.float64) - 0.1 * first)
    assert bias.item() == pytest.approx(1 - 0.1 * 0.5)
    torch.testing.assert_close(optimizer.state[weight]["mu"], first)

    optimizer.step()
    assert bias.item() == pytest.approx(1 - 0.1 * 0.5 - 0.1 * (0.9 * 0.5 + 0.5))


@pytest.mark.parametrize(("values", "gradient"), [([[0.0, 0.0]], [[1.0, 2.0]]), ([[1.0, 2.0]], [[0.0, 0.0]])])
def test_nothing_is_scaled_where_weights_or_gradient_are_zero(values, gradient):
    weight = parameter(values, gradient)
    LARS([weight], lr=1.0).step()
    expected = torch.tensor(values, dtype=torch.float64) - torch.tensor(gradient, dtype=torch.float64)
    torch.testing.assert_close(weight.detach(), expected)


def test_the_learning_rate_may_be_a_tensor_and_a_parameter_without_gradient_stays():
    weight, idle = parameter([[3.0, 4.0]], [[0.0, 2.0]]), nn.Parameter(torch.ones(2, 2))
    number = parameter([[3.0, 4.0]], [[0.0, 2.0]])
    optimizer = LARS([weight, idle])
    optimizer.param_groups[0]["lr"] = torch.tensor(0.5)
    optimizer.step()
    LARS([number], lr=0.5).step()
    torch.testing.assert_close(weight, number)
    assert torch.equal(idle.detach(), torch.ones(2, 2))


def test_its_state_is_saved_and_read_back():
    weights = [parameter([[3.0, 4.0]], [[0.0, 2.0]]) for _ in range(2)]
    first, second = (LARS([weight], lr=0.1) for weight in weights)
    first.step()
    weights[1].data.copy_(weights[0].data)
    second.load_state_dict(copy.deepcopy(first.state_dict()))
    first.step()
    second.step()
    assert torch.equal(*weights)

import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn

from domainbed.algorithms.running_average import RunningAverage


@settings(deadline=None)
@given(st.lists(st.floats(-1e3, 1e3, width=32), min_size=1, max_size=20), st.integers(0, 2))
def test_the_average_is_the_mean_of_all_states(numbers, shape):
    states = [torch.full((2,) * shape, number, dtype=torch.float64) for number in numbers]
    average, running = {"w": states[0].clone()}, RunningAverage()
    for state in states[1:]:
        running.update(average, {"w": state})
    assert running.count == len(states) - 1
    torch.testing.assert_close(average["w"], torch.stack(states).mean(0))


def test_integers_and_booleans_are_copied_and_only_the_average_changes():
    average = {"n": torch.tensor(1), "flag": torch.tensor([True]), "w": torch.tensor([0.0])}
    current = {"n": torch.tensor(5), "flag": torch.tensor([False]), "w": torch.tensor([4.0]), "more": None}
    RunningAverage().update(average, current)
    assert average == {"n": torch.tensor(5), "flag": torch.tensor([False]), "w": torch.tensor([2.0])}
    assert current["w"] == 4


def test_tensors_may_all_be_integers():
    average = {"n": torch.tensor(1)}
    RunningAverage().update(average, {"n": torch.tensor(2)})
    assert average["n"] == 2


def test_parameters_that_require_gradients_may_be_averaged():
    layer, other = nn.Linear(2, 2), nn.Linear(2, 2)
    expected = (layer.weight.detach() + other.weight.detach()) / 2
    RunningAverage().update(dict(layer.named_parameters()), dict(other.named_parameters()))
    torch.testing.assert_close(layer.weight.detach(), expected)
    assert layer.weight.requires_grad


def test_the_count_is_restored():
    first, second = RunningAverage(count=3), RunningAverage()
    second.load_state_dict(first.state_dict())
    average = {"w": torch.tensor(1.0)}
    second.update(average, {"w": torch.tensor(6.0)})
    assert average["w"] == 2  # (4 * 1 + 6) / 5
    assert second.count == 4

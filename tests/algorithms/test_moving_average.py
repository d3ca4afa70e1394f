import pytest
import torch

from domainbed.algorithms.moving_average import MovingAverage


def test_corrected_average_is_the_newest_data_plus_the_past(float64):
    average = MovingAverage(0.9)
    first, second = torch.tensor([[1.0, 2.0]]), torch.tensor([[10.0, 0.0]])
    torch.testing.assert_close(average.update({"a": first})["a"], first)
    torch.testing.assert_close(average.update({"a": second})["a"], second + 9 * 0.1 * first)
    torch.testing.assert_close(average.ema_data["a"], 0.1 * second + 0.09 * first)


def test_without_correction_it_is_the_average_itself(float64):
    average = MovingAverage(0.75, oneminusema_correction=False)
    assert average.update({"a": torch.ones(2, 2)})["a"].tolist() == [[0.25] * 4]
    assert average.update({"a": torch.ones(2, 2)})["a"].tolist() == [[0.4375] * 4]


def test_derivative_by_the_newest_data_is_one_and_the_past_is_a_constant(float64):
    average = MovingAverage(0.9)
    for _ in range(3):
        data = torch.ones(3, requires_grad=True)
        average.update({"a": data})["a"].sum().backward()
        torch.testing.assert_close(data.grad, torch.ones(3))
        assert not average.ema_data["a"].requires_grad


def test_goes_on_from_its_state():
    average, other = MovingAverage(0.5), MovingAverage(0.5)
    average.update({"a": torch.ones(2)})
    other.load_state_dict(average.state_dict())
    state = other.state_dict()
    expected = average.update({"a": torch.zeros(2)})
    assert torch.equal(other.update({"a": torch.zeros(2)})["a"], expected["a"])
    assert state["updates"] == 1
    assert other.state_dict()["updates"] == average.state_dict()["updates"] == 2


def test_the_past_follows_the_datas_dtype():
    average = MovingAverage(0.5)
    average.update({"a": torch.ones(2)})
    assert average.update({"a": torch.ones(2, dtype=torch.float64)})["a"].dtype == torch.float64
    assert average.ema_data["a"][0, 0].item() == pytest.approx(0.75)

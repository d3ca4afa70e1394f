import pytest
import torch

from domainbed.algorithms.tensor_dicts import ParamDict, l2_between_dicts


def pair():
    return (
        ParamDict(b=torch.tensor([1.0, 2.0]), a=torch.tensor(3.0)),
        {"a": torch.tensor(4.0), "b": torch.tensor([8.0, 5.0]), "more": torch.tensor(9.0)},
    )


def test_operations_with_a_dictionary_keep_the_left_keys():
    left, right = pair()
    for result, expected in (
        (left + right, [9, 7, 7]),
        (left - right, [-7, -3, -1]),
        (left * right, [8, 10, 12]),
        (left / right, [0.125, 0.4, 0.75]),
        (-left, [-1, -2, -3]),
    ):
        assert isinstance(result, ParamDict)
        assert list(result) == ["b", "a"]
        assert [*result["b"].tolist(), result["a"].item()] == pytest.approx(expected)


def test_operations_with_a_number_on_either_side():
    left, _ = pair()
    for result, expected in (
        (left + 1, [2, 3, 4]),
        (1 + left, [2, 3, 4]),
        (left - 1, [0, 1, 2]),
        (1 - left, [0, -1, -2]),
        (left * 2, [2, 4, 6]),
        (2 * left, [2, 4, 6]),
        (left / 2, [0.5, 1, 1.5]),
    ):
        assert [*result["b"].tolist(), result["a"].item()] == expected


def test_interpolation_halfway():
    left, right = pair()
    way = ParamDict({name: right[name] for name in left}) - left
    assert (left + 0.5 * way)["b"].tolist() == [4.5, 3.5]


def test_l2_is_the_mean_over_all_entries():
    left, right = pair()
    del right["more"]
    assert l2_between_dicts(left, right).item() == pytest.approx((49 + 9 + 1) / 3)
    with pytest.raises(AssertionError, match="2 and 1 tensors"):
        l2_between_dicts(left, {"a": left["a"]})

"""What every registered algorithm does, on random images with three source environments."""

import io

import numpy as np
import pytest
import torch

from domainbed.algorithms import ALGORITHMS, Algorithm, get_algorithm_class
from domainbed.datasets import get_dataset_class
from domainbed.errors import UnknownName
from domainbed.hparams_registry import default_hparams
from domainbed.test.helpers import make_minibatches

pytestmark = pytest.mark.parametrize("name", ALGORITHMS)


def make(name, **overrides):
    torch.manual_seed(0)
    dataset = get_dataset_class("Debug28")(None, [], {})
    hparams = default_hparams(name, "Debug28") | overrides
    torch.manual_seed(0)
    algorithm = get_algorithm_class(name)(dataset.input_shape, dataset.num_classes, len(dataset), hparams)
    return algorithm, make_minibatches(dataset, 8)


def test_three_updates_and_a_prediction(name):
    algorithm, minibatches = make(name)
    for _ in range(3):
        step_values = algorithm.update(minibatches)
        assert step_values
        assert all(np.isfinite(float(value)) for value in step_values.values())
        assert np.isfinite(np.mean(list(step_values.values())))
    algorithm.eval()
    assert algorithm.predict(minibatches[0][0]).shape == (8, 2)


def test_an_update_changes_weights_and_repeats_itself_to_the_bit(name):
    outcomes = []
    for _ in range(2):
        algorithm, minibatches = make(name)
        before = [p.detach().clone() for p in algorithm.parameters()]
        torch.manual_seed(1)
        np.random.seed(1)
        for _ in range(2):
            algorithm.update(minibatches)
        after = [p.detach() for p in algorithm.parameters()]
        assert any(not torch.equal(a, b) for a, b in zip(before, after, strict=True))
        outcomes.append(after)
    assert all(torch.equal(a, b) for a, b in zip(*outcomes, strict=True))


def test_the_state_dict_goes_into_a_new_object_without_executing_anything(name):
    algorithm, minibatches = make(name)
    algorithm.update(minibatches)
    buffer = io.BytesIO()
    torch.save(algorithm.state_dict(), buffer)
    buffer.seek(0)
    other, _ = make(name)
    other.load_state_dict(torch.load(buffer, weights_only=True))
    algorithm.eval()
    other.eval()
    x = minibatches[0][0]
    torch.manual_seed(5)
    expected = algorithm.predict(x)
    torch.manual_seed(5)
    assert torch.equal(other.predict(x), expected)


def test_the_hparams_are_kept_as_the_same_object_and_the_class_says_where_it_is_from(name):
    algorithm, _ = make(name)
    assert isinstance(algorithm, Algorithm)
    assert type(algorithm).__name__ == name
    assert "20" in type(algorithm).__doc__ or "19" in type(algorithm).__doc__


def test_lookup_by_name(name):
    import domainbed.algorithms

    assert get_algorithm_class(name) is getattr(domainbed.algorithms, name)
    with pytest.raises(UnknownName, match=f"Algorithm not found: {name}x"):
        get_algorithm_class(name + "x")

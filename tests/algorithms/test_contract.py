"""The contract of every registered algorithm, on random images with three source environments."""

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


def make(name, seed=0, **overrides):
    torch.manual_seed(0)
    dataset = get_dataset_class("Debug28")(None, [], {})
    hparams = default_hparams(name, "Debug28") | {"featurizer": "small_cnn"} | overrides
    torch.manual_seed(seed)
    algorithm = get_algorithm_class(name)(dataset.input_shape, dataset.num_classes, len(dataset), hparams)
    return algorithm, make_minibatches(dataset, 8)


def test_three_updates_and_a_prediction(name):
    algorithm, minibatches = make(name, featurizer="auto")
    for _ in range(3):
        step_values = algorithm.update(minibatches)
        assert step_values
        assert all(np.isfinite(float(value)) for value in step_values.values())
        assert np.isfinite(np.mean(list(step_values.values())))
    algorithm.eval()
    assert algorithm.predict(minibatches[0][0]).shape == (8, 2)


def test_an_update_changes_weights_and_is_reproducible(name):
    outcomes = []
    for _ in range(2):
        algorithm, minibatches = make(name)
        before = [p.detach().clone() for p in algorithm.parameters()]
        torch.manual_seed(1)
        np.random.seed(1)
        for _ in range(2):
            algorithm.update(minibatches)
        after = [p.detach() for p in algorithm.parameters()]
        assert any(not torch.equal(a, b) for a, b in zip(before, after, strict=True)) == algorithm.TRAINS
        outcomes.append(after)
    assert all(torch.equal(a, b) for a, b in zip(*outcomes, strict=True))


def through_a_file(content):
    """`content` as read from a checkpoint, without executing code."""
    buffer = io.BytesIO()
    torch.save(content, buffer)
    buffer.seek(0)
    return torch.load(buffer, weights_only=True)


def test_six_updates_equal_three_and_three_more_in_a_new_object(identical, name):
    """The state includes weights, optimizers, averages and counters; losses change between the updates."""
    thresholds = {key: 4 for key in default_hparams(name, "Debug28") if key.endswith("anneal_iters")}
    thresholds |= {
        key: 1 for key in ("iters", "eqrm_burnin_iters") if key in default_hparams(name, "Debug28")
    }
    thresholds["linear_steps"] = 2

    def updates(algorithm, minibatches, steps):
        for step in steps:
            torch.manual_seed(step)
            np.random.seed(step)
            algorithm.update([(x + step, y) for x, y in minibatches])

    straight, minibatches = make(name, **thresholds)
    updates(straight, minibatches, range(6))

    first, _ = make(name, **thresholds)
    updates(first, minibatches, range(3))
    state = through_a_file(first.training_state())
    updates(first, minibatches, range(3, 5))  # must not change the saved state
    second, _ = make(name, seed=99, **thresholds)
    second.load_training_state(state)
    updates(second, minibatches, range(3, 6))

    expected, got = straight.state_dict(), second.state_dict()
    assert expected.keys() == got.keys()
    assert all(torch.equal(expected[key], got[key]) for key in expected)
    assert identical(straight.training_state(), second.training_state())


def test_the_state_dict_can_be_loaded_without_executing_code(name):
    algorithm, minibatches = make(name)
    algorithm.update(minibatches)
    other, _ = make(name, seed=99)
    other.load_state_dict(through_a_file(algorithm.state_dict()))
    algorithm.eval()
    other.eval()
    x = minibatches[0][0]
    torch.manual_seed(5)
    expected = algorithm.predict(x)
    torch.manual_seed(5)
    assert torch.equal(other.predict(x), expected)


def test_the_class_has_its_name_and_cites_a_paper(name):
    algorithm, _ = make(name)
    assert isinstance(algorithm, Algorithm)
    assert type(algorithm).__name__ == name
    assert "20" in type(algorithm).__doc__ or "19" in type(algorithm).__doc__


def test_lookup_by_name(name):
    import domainbed.algorithms

    assert get_algorithm_class(name) is getattr(domainbed.algorithms, name)
    with pytest.raises(UnknownName, match=f"Algorithm not found: {name}x"):
        get_algorithm_class(name + "x")

import numpy as np
import pytest

from domainbed.errors import UsageError
from domainbed.predictions.content import PartPredictions
from domainbed.predictions.ensemble import ensemble


def test_an_ensemble_averages_probabilities_not_votes(part_of):
    sure, unsure = np.log([0.9, 0.1]), np.log([0.4, 0.6])
    together = ensemble(
        [[part_of([sure, unsure], [0, 1])], [part_of([unsure] * 2, [0, 1])], [part_of([unsure] * 2, [0, 1])]]
    )
    np.testing.assert_allclose(together.probabilities, [[1.7 / 3, 1.3 / 3], [0.4, 0.6]], atol=1e-3)
    assert together.predicted.tolist() == [0, 1]
    assert together.accuracy == 1.0
    assert together.members == [1.0, 0.5, 0.5]


def test_an_ensemble_of_equal_members_is_each_of_them(part_of):
    part = part_of(np.random.default_rng(0).standard_normal((20, 5)), np.arange(20) % 5)
    together = ensemble([[part]] * 3)
    assert (together.predicted == part.predicted).all()
    assert together.members == [together.accuracy] * 3


def test_members_are_matched_by_image(part_of):
    one = part_of(np.eye(2)[[0, 1, 1]], [0, 1, 1], images=["a.png", "b.png", "c.png"])
    other = part_of(np.eye(2)[[1, 0]], [1, 0], images=["c.png", "a.png"])
    together = ensemble([[one], [other]])
    assert together.identities.tolist() == ["a.png", "c.png"]
    assert together.predicted.tolist() == together.labels.tolist() == [0, 1]


def test_an_ensemble_of_some_classes_is_refused_by_name():
    part = PartPredictions(
        name="env0_in",
        environment=0,
        step=0,
        num_classes=200,
        labels=np.array([1]),
        positions=np.array([0]),
        images=None,
        predicted=np.array([1]),
        log_probabilities=np.zeros((1, 21), dtype=np.float16),
        classes=np.arange(21)[None],
    )
    with pytest.raises(
        UsageError, match="the average of predictions needs the probabilities of all 200 classes"
    ):
        ensemble([[part], [part]])

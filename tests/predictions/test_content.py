import json

import numpy as np
import pytest

from domainbed.errors import UsageError
from domainbed.predictions import accuracy, read_predictions
from domainbed.predictions.content import PartPredictions


def test_logits_keep_the_predicted_class_where_rounding_makes_classes_equal(part_of):
    part = part_of([[0.0, 1e-6, 0.0], [2.0, 2.0 + 1e-5, -1.0]], [1, 1])
    assert (part.log_probabilities[:, 0] == part.log_probabilities[:, 1]).all()
    assert part.logits().argmax(1).tolist() == part.predicted.tolist() == [1, 1]


def test_logits_of_the_most_probable_classes_share_the_remaining_probability():
    probabilities = np.array([[0.5, 0.3, 0.1, 0.5]])  # of classes 7, 2 and 4, and of the label 7
    part = PartPredictions(
        name="env0_in",
        environment=0,
        step=0,
        num_classes=9,
        labels=np.array([7]),
        positions=np.array([0]),
        images=None,
        predicted=np.array([7]),
        log_probabilities=np.log(probabilities).astype(np.float16),
        classes=np.array([[7, 2, 4, 7]]),
    )
    expected = np.full(9, 0.1 / 6)
    expected[[7, 2, 4]] = 0.5, 0.3, 0.1
    np.testing.assert_allclose(np.exp(part.logits()[0]), expected, atol=1e-3)
    with pytest.raises(UsageError, match=r"x needs the probabilities of all 9 classes, .* only the 20 most"):
        part.require_all_classes("x")


def test_a_frame_has_a_row_for_each_sample_of_each_part_and_step(run_dir):
    predictions = read_predictions(run_dir)
    frame = predictions.frame()
    records = [json.loads(line) for line in (run_dir / "results.jsonl").read_text().splitlines()]
    assert predictions.steps == [0, 2, 4] == sorted(frame["step"].unique())
    for record in records:
        for part in predictions.parts:
            rows = frame[(frame["step"] == record["step"]) & (frame["environment"] == int(part[3]))]
            rows = rows[rows["part"] == part[5:]]
            assert len(rows) == record["sizes"][part]
            assert rows["correct"].sum() / len(rows) == record[f"{part}_acc"]
    names = np.array(predictions.about["environments"])
    assert (frame["environment_name"] == names[frame["environment"]]).all()
    assert (frame["label_name"] == np.array(predictions.classes)[frame["label"]]).all()
    target = frame[(frame["environment"] == 1) & (frame["step"] == 4)]
    assert sorted(target["image"]) == list(range(len(target)))  # both parts, by positions


def test_a_frame_of_one_step_can_have_the_probability_of_each_class(run_dir):
    predictions = read_predictions(run_dir)
    frame = predictions.frame(["iid"], probabilities=True)
    columns = [f"log_probability.{name}" for name in predictions.classes]
    assert set(frame["step"]) == {predictions.about["selected"]["iid"]}
    np.testing.assert_allclose(np.exp(frame[columns].to_numpy()).sum(1), 1, atol=5e-3)
    own = frame[columns].to_numpy()[np.arange(len(frame)), frame["label"]]
    assert (own == frame["log_probability"]).all()


def test_the_step_is_the_last_one_by_default_or_that_of_a_selection_rule(run_dir):
    predictions = read_predictions(run_dir)
    assert predictions.part("env1_in").step == 4
    assert predictions.part("env1_in", 0).step == 0
    assert predictions.part("env1_in", "oracle").step == 4
    assert [part.name for part in predictions.environment(1)] == ["env1_in", "env1_out"]
    assert 0 < accuracy(predictions.part("env1_in")) < 1


@pytest.mark.parametrize(
    ("part", "step", "message"),
    [
        ("env1_in", 1, r"no predictions of step 1 \(saved steps: 0, 2, 4\); use --save_predictions all"),
        ("env9_in", None, "has no part 'env9_in'"),
        ("env1_in", "idd", "does not know the step that rule 'idd' selects"),
    ],
)
def test_what_was_not_saved_is_refused_by_name(run_dir, part, step, message):
    with pytest.raises(UsageError, match=message):
        read_predictions(run_dir).part(part, step)

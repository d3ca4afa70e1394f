import json

import numpy as np
import pytest

from domainbed.errors import UnknownName, UsageError
from domainbed.metrics import METRICS, Metric
from domainbed.predictions import (
    accuracy,
    confusion_matrix,
    metric_value,
    read_predictions,
    reliability,
    subset_accuracies,
)
from domainbed.predictions.content import PartPredictions


def test_metrics_after_the_fact_equal_those_of_the_record(run_dir):
    predictions = read_predictions(run_dir)
    records = [json.loads(line) for line in (run_dir / "results.jsonl").read_text().splitlines()]
    for record in records:
        for name in predictions.parts:
            part = predictions.part(name, record["step"])
            assert accuracy(part) == record[f"{name}_acc"]
            for metric in ("balanced", "worst", "f1"):
                assert metric_value(part, metric) == pytest.approx(record[f"{name}_{metric}"], abs=1e-6)
            assert metric_value(part, "nll") == pytest.approx(record[f"{name}_nll"], abs=2e-3)
            assert metric_value(part, "ece") == pytest.approx(record[f"{name}_ece"], abs=5e-3)


def test_a_confusion_matrix_counts_labels_by_predicted_classes(part_of):
    part = part_of(np.eye(3)[[0, 1, 1, 2, 0]], [0, 0, 1, 1, 0])
    assert confusion_matrix(part).tolist() == [[2, 1, 0], [0, 1, 1], [0, 0, 0]]


def test_a_reliability_diagram_has_bins_whose_gaps_give_the_calibration_error(part_of, run_dir):
    sure, unsure = np.log([0.9, 0.1]), np.log([0.55, 0.45])
    diagram = reliability(part_of([sure, sure, unsure, unsure], [0, 1, 0, 0]), bins=4)
    assert diagram.counts.tolist() == [0, 0, 2, 2]
    assert diagram.accuracies[2:].tolist() == [1.0, 0.5]
    np.testing.assert_allclose(diagram.confidences[2:], [0.55, 0.9], atol=1e-3)
    assert np.isnan(diagram.accuracies[0])
    assert diagram.ece == pytest.approx((0.45 + 0.4) / 2, abs=1e-3)
    part = read_predictions(run_dir).part("env1_in")
    assert reliability(part).ece == pytest.approx(metric_value(part, "ece"), abs=5e-3)


def test_accuracy_on_named_subsets_by_paths_patterns_or_positions(part_of):
    images = ["photo/dog/1.png", "photo/dog/2.png", "photo/cat/1.png", "photo/cat/[2].png"]
    part = part_of(np.eye(2)[[0, 1, 1, 0]], [0, 0, 1, 1], images=images)
    assert subset_accuracies(part, {"dogs": "photo/dog/*", "one": ["photo/cat/1.png"], "all": ["*"]}) == {
        "dogs": (0.5, 2),
        "one": (1.0, 1),
        "all": (0.5, 4),
    }
    assert subset_accuracies(part_of(np.eye(2), [0, 0]), {"second": [1]}) == {"second": (0.0, 1)}
    with pytest.raises(
        UsageError, match=r"subset 'birds' has no sample of env1_in, .* like 'photo/dog/1.png'"
    ):
        subset_accuracies(part, {"birds": ["photo/bird/*"]})


def test_an_unknown_metric_is_named(part_of):
    with pytest.raises(UnknownName, match="Metric not found: brier"):
        metric_value(part_of([[0.0, 1.0]], [0]), "brier")


def truncated(logits, labels):
    """Predictions of logits (N, 200) of which the 20 most probable classes and the label were saved."""
    log_probabilities = logits - np.log(np.exp(logits).sum(1, keepdims=True))
    classes = np.concatenate([np.argsort(-logits, axis=1)[:, :20], labels[:, None]], axis=1)
    return PartPredictions(
        name="env0_in",
        environment=0,
        step=0,
        num_classes=200,
        labels=labels,
        positions=np.arange(len(labels)),
        images=None,
        predicted=logits.argmax(1),
        log_probabilities=np.take_along_axis(log_probabilities, classes, axis=1).astype(np.float16),
        classes=classes,
    )


def test_of_many_classes_the_most_probable_ones_give_every_metric_of_records(part_of):
    draws = np.random.default_rng(0)
    logits, labels = 2 * draws.standard_normal((50, 200)), draws.integers(200, size=50)
    kept, every = truncated(logits, labels), part_of(logits, labels)
    for name in ("nll", "ece", "balanced", "worst", "f1"):
        assert metric_value(kept, name) == pytest.approx(metric_value(every, name), abs=5e-3), name
    assert confusion_matrix(kept).sum() == 50


def test_of_many_classes_what_needs_all_probabilities_is_refused_by_name(monkeypatch):
    metric = Metric(lambda logits, labels: logits.sum(), "entropy", "nats", False, 0.1)
    monkeypatch.setitem(METRICS, "entropy", metric)
    kept = truncated(np.zeros((2, 200)), np.array([3, 4]))
    with pytest.raises(UsageError, match="metric entropy needs the probabilities of all 200 classes"):
        metric_value(kept, "entropy")

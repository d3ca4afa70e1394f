"""Metrics equal scikit-learn's on random and degenerate cases."""

import warnings

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from sklearn.metrics import balanced_accuracy_score, f1_score, log_loss, recall_score

from domainbed.errors import UsageError
from domainbed.metrics import BINS, METRICS, is_metric_key, metric, predicted_classes

IMPOSSIBLE = -torch.inf


def sklearns(logits, labels):
    """The metrics by scikit-learn, and the ECE, which it lacks, by its definition, with float32 bins."""
    probabilities = logits.double().softmax(1).numpy()
    predictions, labels = logits.argmax(1).numpy(), labels.numpy()
    classes = np.arange(logits.size(1))
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # of predicted classes that no sample has
        return {
            "nll": log_loss(labels, probabilities, labels=classes),
            "ece": ece_by_loops(logits.softmax(1).numpy(), labels),
            "balanced": balanced_accuracy_score(labels, predictions),
            "worst": recall_score(labels, predictions, labels=np.unique(labels), average=None).min(),
            "f1": f1_score(labels, predictions, average="macro", zero_division=0.0),
        }


def ece_by_loops(probabilities, labels):
    confidences, correct = probabilities.max(1), probabilities.argmax(1) == labels
    bins = np.ceil(confidences * np.float32(BINS))
    error = 0.0
    for number in range(1, BINS + 1):
        inside = bins == number
        if inside.any():
            error += inside.mean() * abs(correct[inside].mean() - confidences[inside].mean())
    return error


def ours(logits, labels):
    return {name: float(METRICS[name](logits, labels)) for name in ("nll", "ece", "balanced", "worst", "f1")}


def random_case(seed, n, classes, scale):
    generator = torch.Generator().manual_seed(seed)
    logits = scale * torch.randn(n, classes, generator=generator)
    return logits, torch.randint(classes, (n,), generator=generator)


@settings(max_examples=60, deadline=None)
@given(st.integers(0, 10**6), st.integers(1, 90), st.integers(2, 9), st.floats(0.1, 4.0))
def test_metrics_equal_sklearns_on_random_cases(seed, n, classes, scale):
    logits, labels = random_case(seed, n, classes, scale)
    assert ours(logits, labels) == pytest.approx(sklearns(logits, labels), rel=1e-4, abs=1e-5)


def test_metrics_equal_sklearns_when_a_class_is_absent():
    logits, labels = random_case(0, 50, 4, 2.0)
    labels[labels == 2] = 0
    assert ours(logits, labels) == pytest.approx(sklearns(logits, labels), rel=1e-5)
    logits[:, 2] = -30.0  # nor predicted
    assert ours(logits, labels) == pytest.approx(sklearns(logits, labels), rel=1e-5)


def test_metrics_equal_sklearns_when_all_predictions_are_one_class():
    logits, labels = random_case(1, 50, 4, 2.0)
    logits[:, 1] = 10.0
    found = ours(logits, labels)
    assert found == pytest.approx(sklearns(logits, labels), rel=1e-5)
    assert (found["worst"], found["balanced"]) == (0.0, 0.25)


@pytest.mark.parametrize("label", [0, 1])
def test_metrics_equal_sklearns_of_one_sample(label):
    logits, labels = torch.tensor([[2.0, -1.0, 0.5]]), torch.tensor([label])
    assert ours(logits, labels) == pytest.approx(sklearns(logits, labels), rel=1e-5)


def test_metrics_equal_sklearns_with_probabilities_of_0_for_other_classes():
    logits, labels = random_case(2, 40, 4, 2.0)
    others = torch.rand(logits.shape, generator=torch.Generator().manual_seed(3)) < 0.3
    logits[others & (torch.arange(4) != labels[:, None])] = IMPOSSIBLE
    assert ours(logits, labels) == pytest.approx(sklearns(logits, labels), rel=1e-5)


def test_a_label_with_probability_0_has_infinite_likelihood_and_the_other_metrics_equal_sklearns():
    logits, labels = random_case(4, 40, 4, 2.0)
    logits[7, labels[7]] = IMPOSSIBLE
    found, expected = ours(logits, labels), sklearns(logits, labels)
    assert found.pop("nll") == float("inf")
    expected.pop("nll")  # scikit-learn replaces 0 by a small number
    assert found == pytest.approx(expected, rel=1e-5)


def test_a_logit_that_is_not_a_number_is_not_hidden():
    logits, labels = random_case(5, 10, 3, 1.0)
    logits[4] = torch.nan
    found = ours(logits, labels)
    assert np.isnan([found["nll"], found["ece"]]).all()


def test_log_probabilities_have_the_metrics_of_their_logits():
    logits, labels = random_case(6, 40, 4, 2.0)
    assert ours(logits.log_softmax(1), labels) == pytest.approx(ours(logits, labels), rel=1e-5)


def test_a_single_column_is_the_logit_of_class_1():
    column, labels = random_case(7, 40, 1, 2.0)[0], torch.arange(40) % 2
    both = torch.cat([torch.zeros_like(column), column], 1)
    assert ours(column, labels) == ours(both, labels)
    assert predicted_classes(column).equal(predicted_classes(both))


def test_certain_predictions_are_in_the_last_bin():
    logits = torch.tensor([[0.0, IMPOSSIBLE], [0.0, IMPOSSIBLE]])
    assert float(METRICS["ece"](logits, torch.tensor([0, 1]))) == 0.5


@pytest.mark.parametrize("name", ["acc", "balanced_acc", "Brier", "a__b", "a b", "1st", ""])
def test_a_metric_cannot_have_a_name_that_reads_as_an_accuracy_or_breaks_keys(name):
    made = metric("title", unit="", larger_is_better=True, rope=0.0)(lambda logits, labels: logits.sum())
    with pytest.raises(UsageError, match="a metric cannot be called"):
        METRICS.register(name)(made)


def test_keys_of_metrics_are_told_from_accuracies_and_other_entries():
    assert all(map(is_metric_key, ("env0_in_nll", "env12_test_worst", "env3_uda_my_metric")))
    assert not any(map(is_metric_key, ("env0_in_acc", "env0_out_acc", "loss", "env0_in", "fd_env0_in_nll")))

"""Accuracies and metrics of parts, whenever they are computed."""

import pytest
import torch

from domainbed.errors import RunError
from domainbed.metrics import METRICS, metric
from domainbed.training.evaluation import PartOutputs
from domainbed.training.scores import Scores


def outputs_of(name, samples):
    """Outputs of a part with four classes."""
    draws = torch.Generator().manual_seed(samples)
    logits = torch.randn(samples, 4, generator=draws)
    return PartOutputs(name, logits, torch.randint(4, (samples,), generator=draws))


def test_large_and_small_parts_get_the_metrics_of_their_own_logits():
    # Together more logits than wait for their metrics, and a few at the end that do wait.
    parts = [outputs_of(f"env{i}_in", samples) for i, samples in enumerate((50, 270_000, 1, 30))]
    scores = Scores()
    with torch.inference_mode():
        for part in parts:
            scores(part)
    assert scores.metrics() == {
        f"{part.name}_{name}": float(each(part.logits, part.labels))
        for part in parts
        for name, each in METRICS.items()
    }
    assert scores.accuracies() == {
        f"{part.name}_acc": (part.logits.argmax(1) == part.labels).double().mean().item() for part in parts
    }


def test_logits_do_not_wait_when_they_are_many():
    computed = []
    note = metric("size", unit="", larger_is_better=True, rope=0.0)
    scores = Scores({"size": note(lambda logits, labels: computed.append(len(labels)) or torch.tensor(0.0))})
    sizes = [2**18, 1, 2**18, 2**17, 2**17 + 1, 5]
    for i, samples in enumerate(sizes):
        scores(outputs_of(f"env{i}_in", samples))
    assert computed == sizes[:4]  # four classes: the second and the fourth part exceed 2**20 logits
    scores.metrics()
    assert computed == sizes


def test_a_metric_that_fails_is_named_with_the_part():
    scores = Scores(
        {"bad": metric("bad", unit="", larger_is_better=True, rope=0.0)(lambda logits, labels: labels)}
    )
    scores(outputs_of("env2_out", 3))
    with pytest.raises(RunError, match="metric bad of env2_out cannot be computed"):
        scores.metrics()

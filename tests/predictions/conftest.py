"""Predictions made by hand, and those of a small run."""

import numpy as np
import pytest

import domainbed
from domainbed.predictions.content import PartPredictions


@pytest.fixture(scope="session")
def part_of():
    """`part_of(logits, labels, ...)`: predictions for a part, of logits (N, C) and labels (N,)."""

    def make(logits, labels, name="env1_in", images=None):
        logits = np.asarray(logits, dtype=np.float64)
        shifted = logits - logits.max(1, keepdims=True)
        log_probabilities = shifted - np.log(np.exp(shifted).sum(1, keepdims=True))
        return PartPredictions(
            name=name,
            environment=int(name[3]),
            step=3,
            num_classes=logits.shape[1],
            labels=np.asarray(labels, dtype=np.int64),
            positions=np.arange(len(labels)),
            images=None if images is None else np.array(images, dtype=object),
            predicted=logits.argmax(1),
            log_probabilities=log_probabilities.astype(np.float16),
        )

    return make


@pytest.fixture(scope="session")
def run_dir(tmp_path_factory):
    """Directory of a run of ERM on EmojiStyles with the predictions of all three evaluations."""
    path = tmp_path_factory.mktemp("predictions") / "run"
    settings = {
        "steps": 5,
        "checkpoint_freq": 2,
        "test_envs": [1],
        "hparams": {"batch_size": 8, "featurizer": "small_cnn"},
    }
    domainbed.train(dataset="EmojiStyles", save_predictions="all", output_dir=path, **settings)
    return path

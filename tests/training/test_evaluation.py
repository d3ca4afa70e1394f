import numpy as np
import pytest
import torch
from torch import nn
from torch.utils.data import DataLoader, TensorDataset

from domainbed.algorithms import get_algorithm_class
from domainbed.datasets import get_dataset_class
from domainbed.datasets.splitting import SplitDataset
from domainbed.errors import UsageError
from domainbed.hparams_registry import default_hparams
from domainbed.training.config import TrainConfig
from domainbed.training.derived import split_request
from domainbed.training.evaluation import (
    EVALUATION,
    Evaluator,
    PartBatches,
    accuracy,
    parts_to_evaluate,
    without_augmentation,
)
from domainbed.training.prefetcher import Prefetcher
from domainbed.training.scores import Scores
from domainbed.training.splits import make_splits
from domainbed.training.upstream_loaders import FastDataLoader


class Constant(nn.Module):
    """Predicts one class, and records the modes in which it is called."""

    INFERENCE_MODE = True

    def __init__(self, label, classes=7):
        super().__init__()
        self.label, self.classes = label, classes
        self.modes = set()

    def predict(self, x):
        self.modes.add((self.training, torch.is_grad_enabled(), torch.is_inference_mode_enabled()))
        return torch.eye(self.classes)[self.label].expand(len(x), self.classes)


class Noisy(Constant):
    """Predicts random logits."""

    def predict(self, x):
        return torch.rand(len(x), self.classes) + x.flatten(1).mean(1, keepdim=True)


class Inputs(Constant):
    """Has some of the inputs as logits."""

    def predict(self, x):
        return x.flatten(1)[:, : self.classes]


class OnDisk:
    """Images with random pixels, drawn when they are read."""

    targets = [0] * 300

    def __getitem__(self, index):
        return torch.rand(1), index % 7


def evaluator(model, parts, num_workers=0, seed=0):
    prefetcher = Prefetcher({EVALUATION: PartBatches(parts)}, num_workers)
    return Evaluator(model, parts, torch.device("cpu"), prefetcher, seed)


def accuracies(of, step):
    scores = Scores()
    of.evaluate([scores], step)
    return scores.accuracies()


@pytest.fixture(scope="module")
def emoji():
    return get_dataset_class("EmojiStyles")(None, [], {})


def test_accuracy_is_the_share_of_samples_in_evaluation_mode(emoji):
    model = Constant(3)
    model.train()
    parts = {f"env{i}_in": SplitDataset(emoji[i], list(range(600))) for i in range(2)}
    result = accuracies(evaluator(model, parts), 0)
    for i in range(2):
        assert result[f"env{i}_in_acc"] == np.mean(np.asarray(emoji[i].targets)[:600] == 3)
    assert model.modes == {(False, False, True)}
    assert model.training


def test_consumers_get_the_logits_and_labels_of_each_whole_part_once_and_in_order(emoji):
    keys = list(range(599, -1, -1))  # more than two batches
    parts = {f"env{i}_out": SplitDataset(emoji[i], keys) for i in (1, 0)}
    received, calls = [], []
    made = evaluator(Inputs(3), parts)
    made.evaluate([received.append, lambda outputs: calls.append(outputs.name)], 0)
    assert calls == [outputs.name for outputs in received] == ["env1_out", "env0_out"]
    for i, outputs in zip((1, 0), received, strict=True):
        assert outputs.labels.dtype == torch.int64
        assert outputs.labels.tolist() == np.asarray(emoji[i].targets)[keys].tolist()
        expected = torch.stack([emoji[i][key][0].flatten()[:7] for key in keys])
        assert outputs.logits.equal(expected)
    made.evaluate([received.append], 0, names=["env0_out"])
    assert [outputs.name for outputs in received[2:]] == ["env0_out"]


@pytest.mark.parametrize("num_workers", [0, 2])
def test_random_numbers_of_a_part_do_not_depend_on_workers_or_other_parts(num_workers):
    parts = {
        f"env{i}_{kind}": SplitDataset(OnDisk(), list(range(300))) for i in range(2) for kind in ("in", "out")
    }
    torch.manual_seed(num_workers)
    helped = evaluator(Noisy(0), parts, num_workers, seed=3)
    found = accuracies(helped, 4)
    helped.prefetcher.close()
    alone = {name: parts[name] for name in ("env1_out", "env0_in")}
    assert accuracies(evaluator(Noisy(0), alone, seed=3), 4) == {
        f"{name}_acc": found[f"{name}_acc"] for name in alone
    }
    assert len(set(found.values())) > 1


@pytest.mark.parametrize("name", ["ERM", "ARM", "MTL", "ERMPlusPlus", "TRM"])
def test_inference_mode_changes_no_bit_and_training_continues(name, monkeypatch):
    torch.manual_seed(0)
    hparams = default_hparams(name, "Debug28") | {"batch_size": 8}
    algorithm = get_algorithm_class(name)((3, 28, 28), 2, 2, hparams)
    environment = get_dataset_class("Debug28")(None, [0], hparams)[0]
    parts = {"env0_in": SplitDataset(environment, list(range(16)))}
    losses = []
    for allowed in (True, False):
        monkeypatch.setattr(type(algorithm), "INFERENCE_MODE", allowed)
        losses.append(evaluator(algorithm, parts).mean_loss(["env0_in"], 0))
    # To rounding: which kernel computes a layer may depend on the mode.
    assert losses[0] == pytest.approx(losses[1], rel=1e-6)
    algorithm.update([(torch.rand(8, 3, 28, 28), torch.arange(8) % 2)] * 2)


def test_minibatches_prefetched_during_an_evaluation_can_be_trained_on(prefetcher):
    parts = {"env0_in": SplitDataset(OnDisk(), list(range(300)))}
    made = prefetcher({"labeled": PartBatches(parts), EVALUATION: PartBatches(parts)}, 1)
    labeled = made.read("labeled", [("env0_in", start, (0,)) for start in range(0, 300, 50)])
    next(labeled)
    accuracies(Evaluator(Noisy(0), parts, torch.device("cpu"), made, 0), 0)
    assert not any(x.is_inference() for x, _ in labeled)


@pytest.mark.parametrize(
    ("splits", "which", "names"),
    [
        ("holdout", "all", "env0_in env1_in env2_in env3_in env0_out env1_out env2_out env3_out"),
        ("holdout", "selection", "env1_in env0_out env1_out env2_out env3_out"),
        ("70/10/20", "selection", "env1_in env0_out env1_out env2_out env3_out env1_test"),
        ("70/10/20", "reported", "env0_out env1_test env2_out env3_out"),
        ("holdout", "reported", "env0_out env1_in env2_out env3_out"),
    ],
)
def test_which_parts_are_evaluated(emoji, splits, which, names):
    config = TrainConfig(dataset="EmojiStyles", test_envs=[1], splits=splits)
    assert list(parts_to_evaluate(make_splits(emoji, split_request(config)), [1], which)) == names.split()


def test_numbers_of_unlabeled_parts_skip_environments_without_one(emoji):
    config = TrainConfig(dataset="EmojiStyles", test_envs=[1, 3], uda_holdout_fraction=0.5)
    named = parts_to_evaluate(make_splits(emoji, split_request(config)), [1, 3], "all")
    assert list(named)[-2:] == ["env0_uda", "env1_uda"]


def test_without_augmentation_reaches_through_parts_of_parts():
    class Augmented:
        def __getitem__(self, index):
            return "augmented", index

        def plain(self):
            return ["plain0", "plain1", "plain2"]

    part = SplitDataset(SplitDataset(Augmented(), [2, 1, 0]), [0, 2])
    assert [part[0], part[1]] == [("augmented", 2), ("augmented", 0)]
    assert [without_augmentation(part)[0], without_augmentation(part)[1]] == ["plain2", "plain0"]


def test_numbers_drawn_from_a_seed_never_change():
    """Augmented samples and draws in `predict` give 40 of 300 correct, as in earlier releases."""
    parts = {"env0_in": SplitDataset(OnDisk(), list(range(300)))}
    assert accuracies(evaluator(Noisy(0), parts, seed=3), 4) == {"env0_in_acc": 40 / 300}


class Echo(nn.Module):
    """Returns its inputs as logits, and records its mode."""

    def predict(self, x):
        self.seen = (self.training, torch.is_grad_enabled())
        return x


LOGITS = torch.tensor([[1.0, 0.0], [0.0, 1.0], [3.0, 3.0], [0.0, 2.0], [5.0, 1.0]])
LABELS = torch.tensor([0, 0, 0, 1, 1])  # right, wrong, right (first maximum), right, wrong


def batches(*tensors):
    return list(zip(*(t.split(2) for t in tensors), strict=True))


def test_accuracy_is_the_share_of_correct_samples():
    assert accuracy(Echo(), batches(LOGITS, LABELS), None, "cpu") == pytest.approx(3 / 5)


@pytest.mark.parametrize("labels", [torch.tensor([1, 0, 1, 0]), torch.tensor([[1.0], [0.0], [1.0], [0.0]])])
def test_accuracy_with_one_column(labels):
    logits = torch.tensor([[2.0], [-1.0], [-1.0], [0.0]])
    assert accuracy(Echo(), batches(logits, labels), None, "cpu") == 0.75


@pytest.mark.parametrize("training", [True, False])
def test_accuracy_uses_evaluation_mode_and_restores_the_mode(training):
    network = Echo().train(training)
    accuracy(network, batches(LOGITS, LABELS), None, "cpu")
    assert network.seen == (False, False)
    assert network.training is training


def test_accuracy_restores_the_mode_after_an_error():
    network = Echo()
    with pytest.raises(RuntimeError):
        accuracy(network, [(LOGITS, torch.zeros(3))], None, "cpu")
    assert network.training


WEIGHTS = torch.tensor([1.0, 10.0, 100.0, 1000.0, 10000.0])


@pytest.mark.parametrize("num_workers", [0, 1])
def test_weights_follow_their_samples_with_a_shuffling_fast_data_loader(num_workers):
    torch.manual_seed(3)
    loader = FastDataLoader(TensorDataset(LOGITS, LABELS), 2, num_workers)
    for _ in range(3):
        assert accuracy(Echo(), loader, WEIGHTS, "cpu") == pytest.approx(1101 / 11111)


def test_weights_with_sequential_loaders():
    dataset = TensorDataset(LOGITS, LABELS)
    for loader in (batches(LOGITS, LABELS), DataLoader(dataset, 2)):
        assert accuracy(Echo(), loader, WEIGHTS, "cpu") == pytest.approx(1101 / 11111)
    with pytest.raises(UsageError, match="does not shuffle"):
        accuracy(Echo(), DataLoader(dataset, 2, shuffle=True), WEIGHTS, "cpu")


def test_accuracy_of_no_samples_is_refused():
    with pytest.raises(UsageError, match="no samples"):
        accuracy(Echo(), [], None, "cpu")
    with pytest.raises(UsageError, match="all weights are zero"):
        accuracy(Echo(), batches(LOGITS, LABELS), torch.zeros(5), "cpu")

import numpy as np
import pytest
import torch
from torch import nn

from domainbed.datasets import get_dataset_class
from domainbed.lib.splitting import _SplitDataset
from domainbed.training.config import TrainConfig
from domainbed.training.evaluation import EVALUATION, PartBatches, accuracies, parts_to_evaluate, plain
from domainbed.training.reader import Reader
from domainbed.training.splits import make_splits


class Constant(nn.Module):
    """Predicts one class; says in which mode it was asked."""

    def __init__(self, label, classes=7):
        super().__init__()
        self.label, self.classes = label, classes
        self.modes = set()

    def predict(self, x):
        self.modes.add((self.training, torch.is_grad_enabled()))
        return torch.eye(self.classes)[self.label].expand(len(x), self.classes)


def reader_of(parts, num_workers=0):
    return Reader({EVALUATION: PartBatches(parts)}, num_workers)


@pytest.fixture(scope="module")
def emoji():
    return get_dataset_class("EmojiStyles")(None, [], {})


def test_accuracy_is_the_share_of_samples_in_evaluation_mode(emoji):
    model = Constant(3)
    model.train()
    parts = {f"env{i}_in": _SplitDataset(emoji[i], list(range(600))) for i in range(2)}
    result = accuracies(model, parts, torch.device("cpu"), reader_of(parts), (0, 0))
    for i in range(2):
        assert result[f"env{i}_in_acc"] == np.mean(np.asarray(emoji[i].targets)[:600] == 3)
    assert model.modes == {(False, False)}
    assert model.training


@pytest.mark.parametrize("num_workers", [0, 2])
def test_an_algorithm_that_draws_in_predict_sees_the_same_numbers_with_any_number_of_workers(num_workers):
    class Noisy(Constant):
        def predict(self, x):
            return torch.rand(len(x), self.classes)

    class OnDisk:
        targets = [0] * 40

        def __getitem__(self, index):
            return torch.zeros(1), 0

    parts = {"env0_in": _SplitDataset(OnDisk(), list(range(40)))}
    torch.manual_seed(num_workers)
    found = accuracies(Noisy(0), parts, torch.device("cpu"), reader_of(parts, num_workers), (3, 4))
    assert found == accuracies(Noisy(0), parts, torch.device("cpu"), reader_of(parts), (3, 4))


@pytest.mark.parametrize(
    ("splits", "which", "names"),
    [
        ("holdout", "all", "env0_in env1_in env2_in env3_in env0_out env1_out env2_out env3_out"),
        ("holdout", "selection", "env1_in env0_out env1_out env2_out env3_out"),
        ("70/10/20", "selection", "env1_in env0_out env1_out env2_out env3_out env1_test"),
    ],
)
def test_which_parts_are_evaluated(emoji, splits, which, names):
    config = TrainConfig(dataset="EmojiStyles", test_envs=[1], splits=splits)
    assert list(parts_to_evaluate(make_splits(emoji, config), [1], which)) == names.split()


def test_unlabeled_parts_are_numbered_over_those_there_are(emoji):
    config = TrainConfig(dataset="EmojiStyles", test_envs=[1, 3], uda_holdout_fraction=0.5)
    named = parts_to_evaluate(make_splits(emoji, config), [1, 3], "all")
    assert list(named)[-2:] == ["env0_uda", "env1_uda"]


def test_the_plain_view_reaches_through_parts_of_parts():
    class Augmented:
        def __getitem__(self, index):
            return "augmented", index

        def plain(self):
            return ["plain0", "plain1", "plain2"]

    part = _SplitDataset(_SplitDataset(Augmented(), [2, 1, 0]), [0, 2])
    assert [part[0], part[1]] == [("augmented", 2), ("augmented", 0)]
    assert [plain(part)[0], plain(part)[1]] == ["plain2", "plain0"]

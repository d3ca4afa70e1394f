import pytest
import torch
from torch import nn
from torch.utils.data import DataLoader, TensorDataset

from domainbed.errors import UsageError
from domainbed.training.evaluation import accuracy
from domainbed.training.upstream_loaders import FastDataLoader


class Echo(nn.Module):
    """Predicts its inputs, and notes the mode it is in."""

    def predict(self, x):
        self.seen = (self.training, torch.is_grad_enabled())
        return x


LOGITS = torch.tensor([[1.0, 0.0], [0.0, 1.0], [3.0, 3.0], [0.0, 2.0], [5.0, 1.0]])
LABELS = torch.tensor([0, 0, 0, 1, 1])  # right, wrong, right (the first maximum counts), right, wrong


def batches(*tensors):
    return list(zip(*(t.split(2) for t in tensors), strict=True))


def test_share_of_right_ones():
    assert accuracy(Echo(), batches(LOGITS, LABELS), None, "cpu") == pytest.approx(3 / 5)


@pytest.mark.parametrize("labels", [torch.tensor([1, 0, 1, 0]), torch.tensor([[1.0], [0.0], [1.0], [0.0]])])
def test_one_column_stays_a_share(labels):
    logits = torch.tensor([[2.0], [-1.0], [-1.0], [0.0]])
    assert accuracy(Echo(), batches(logits, labels), None, "cpu") == 0.75


@pytest.mark.parametrize("training", [True, False])
def test_evaluates_and_leaves_the_mode_as_it_was(training):
    network = Echo().train(training)
    accuracy(network, batches(LOGITS, LABELS), None, "cpu")
    assert network.seen == (False, False)
    assert network.training is training


def test_the_mode_comes_back_after_an_error():
    network = Echo()
    with pytest.raises(RuntimeError):
        accuracy(network, [(LOGITS, torch.zeros(3))], None, "cpu")
    assert network.training


WEIGHTS = torch.tensor([1.0, 10.0, 100.0, 1000.0, 10000.0])


@pytest.mark.parametrize("num_workers", [0, 1])
def test_weights_follow_their_samples_through_a_shuffling_loader(num_workers):
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


def test_nothing_to_evaluate():
    with pytest.raises(UsageError, match="no samples"):
        accuracy(Echo(), [], None, "cpu")
    with pytest.raises(UsageError, match="all weights are zero"):
        accuracy(Echo(), batches(LOGITS, LABELS), torch.zeros(5), "cpu")

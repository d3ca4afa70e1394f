import torch

from domainbed.datasets import get_dataset_class
from domainbed.test import helpers


def test_minibatches_are_the_first_samples_of_each_environment():
    assert helpers.DEBUG_DATASETS == ["Debug28", "Debug224"]
    dataset = get_dataset_class("Debug28")("", [], {})
    minibatches = helpers.make_minibatches(dataset, 5)
    assert len(minibatches) == 3
    for (x, y), environment in zip(minibatches, dataset.datasets, strict=True):
        assert torch.equal(x.cpu(), environment.tensors[0][:5])
        assert torch.equal(y.cpu(), environment.tensors[1][:5])
        assert y.dtype == torch.int64

"""Images held in memory as uint8."""

import numpy as np
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from domainbed.datasets.uint8_images import UInt8Images

ALL_BYTES = torch.arange(256, dtype=torch.uint8).reshape(4, 1, 8, 8)
LABELS = torch.tensor([3, 1, 2, 0])


def test_with_mean_0_and_std_1_inputs_equal_bytes_over_255():
    x, y = UInt8Images(ALL_BYTES, LABELS, mean=0.0, std=1.0).batch(np.arange(4))
    assert x.dtype == torch.float32
    assert torch.equal(x, ALL_BYTES.to(torch.float32) / 255)
    assert torch.equal(y, LABELS)


def test_values_are_normalised():
    x, _ = UInt8Images(ALL_BYTES, LABELS).batch(np.arange(4))
    assert x.min().item() == -2
    assert x.max().item() == 2


@settings(deadline=None)
@given(st.lists(st.integers(0, 3), min_size=1, max_size=9))
def test_a_batch_equals_its_stacked_samples(indices):
    dataset = UInt8Images(ALL_BYTES, LABELS)
    x, y = dataset.batch(np.array(indices))
    items = [dataset[i] for i in indices]
    assert torch.equal(x, torch.stack([item[0] for item in items]))
    assert torch.equal(y, torch.stack([item[1] for item in items]))
    assert len(dataset) == 4


def test_reading_a_batch_does_not_change_the_images():
    images = ALL_BYTES.clone()
    dataset = UInt8Images(images, LABELS)
    dataset.batch(np.arange(4))
    assert torch.equal(images, ALL_BYTES)

"""EmojiStyles."""

import json
from importlib import resources

import numpy as np
import torch

from domainbed.datasets import get_dataset_class

FACTS = json.loads((resources.files("domainbed.datasets") / "data" / "emoji_styles.json").read_text("utf-8"))


def test_counts_equal_those_in_the_packages_json_file():
    dataset = get_dataset_class("EmojiStyles")(None, [0], {})
    assert dataset.counts() == FACTS["counts"]
    assert list(dataset.ENVIRONMENTS) == FACTS["environments"]
    assert sum(len(environment) for environment in dataset.datasets) == FACTS["images"]


def test_inputs_are_the_darkness_of_the_packages_pixels_in_float32():
    dataset = get_dataset_class("EmojiStyles")(None, [0], {})
    archive = resources.files("domainbed.datasets") / "data" / "emoji_styles.npz"
    with archive.open("rb") as file, np.load(file) as arrays:
        last = arrays["images"][arrays["environments"] == 3][-1]
        label = arrays["labels"][arrays["environments"] == 3][-1]
    x, y = dataset[3][len(dataset[3]) - 1]
    assert x.dtype == torch.float32
    assert tuple(x.shape) == dataset.input_shape
    np.testing.assert_allclose(x.numpy(), (1 - last.transpose(2, 0, 1) / 255) / 0.25, atol=1e-6)
    assert y.item() == label


def test_no_image_is_blank():
    for environment in get_dataset_class("EmojiStyles")(None, [], {}).datasets:
        pixels = environment.images.flatten(1)
        assert (pixels.amin(1) < pixels.amax(1)).all()


def test_five_steps_of_training(assert_cache_changes_nothing):
    assert_cache_changes_nothing("EmojiStyles", in_memory=True, featurizer="mlp", mlp_width=8)

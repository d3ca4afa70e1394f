"""The preprocessing that a model keeps equals what its dataset does."""

import json

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

from domainbed.datasets import get_dataset_class
from domainbed.datasets.dataset_preprocessing import preprocessing_by_hparams, preprocessing_of
from domainbed.datasets.image_files import ImageFiles
from domainbed.datasets.image_folder import MultipleEnvironmentImageFolder
from domainbed.datasets.image_transforms import PlainTransform
from domainbed.datasets.preprocessing import Preprocessing
from domainbed.datasets.reading_rules import UPSTREAM, USER_FOLDER

HPARAMS = {"data_augmentation": True, "input_size": 12}


def picture(seed, width, height):
    return Image.fromarray(np.random.default_rng(seed).integers(0, 256, (height, width, 3), dtype=np.uint8))


@settings(max_examples=30, deadline=None)
@given(
    width=st.integers(1, 40),
    height=st.integers(1, 40),
    side=st.integers(1, 40),
    stored_size=st.sampled_from([0, 9, 30]),
    reencode=st.booleans(),
    through_json=st.booleans(),
)
def test_inputs_equal_those_of_the_transform_to_the_bit(
    width, height, side, stored_size, reencode, through_json
):
    hparams = {"input_size": side, "stored_size": stored_size, "reencode": reencode}
    kept = preprocessing_by_hparams(hparams, USER_FOLDER)
    state = json.loads(json.dumps(kept.state())) if through_json else kept.state()
    restored = Preprocessing.from_state(state)
    assert restored == kept
    image = picture(width * height, width, height)
    assert restored(image).equal(PlainTransform(hparams)(image))


def test_of_a_folder_it_is_that_of_the_targets(write_tree, tmp_path):
    write_tree(tmp_path / "mine", {"a": {"x": 2}, "b": {"x": 1}})
    own = get_dataset_class(str(tmp_path / "mine"))(None, [0], HPARAMS)
    assert preprocessing_of(own) == preprocessing_by_hparams(HPARAMS, USER_FOLDER)
    upstreams = MultipleEnvironmentImageFolder(tmp_path / "mine", [], True, HPARAMS)
    assert preprocessing_of(upstreams) == preprocessing_by_hparams(HPARAMS, UPSTREAM)


def test_of_datasets_without_images_there_is_none():
    assert preprocessing_of(get_dataset_class("Debug28")(None, [], {})) is None
    pytest.importorskip("sklearn")
    assert preprocessing_of(get_dataset_class("ColoredDigits")(None, [], {})) is None


class Upside(ImageFiles):
    """Images of a plugin, which turns them."""

    def image(self, index):
        return super().image(index).rotate(180)


def test_what_a_plugin_reads_or_transforms_itself_is_not_guessed(write_tree, tmp_path):
    write_tree(tmp_path / "mine", {"a": {"x": 2}, "b": {"x": 1}})
    dataset = MultipleEnvironmentImageFolder(tmp_path / "mine", [], True, HPARAMS)
    plain, samples = PlainTransform(HPARAMS), dataset.datasets[0].samples
    dataset.datasets[0] = Upside(samples, plain)
    assert preprocessing_of(dataset) is None
    dataset.datasets[0] = ImageFiles(samples, lambda image: plain(image) / 2)
    assert preprocessing_of(dataset) is None
    dataset.datasets[0] = ImageFiles(samples, PlainTransform(HPARAMS | {"input_size": 13}))
    assert preprocessing_of(dataset) is None


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"sharpen": True}, "unknown preprocessing sharpen"),
        ({"rules": None}, "damaged preprocessing"),
        ({"rules": {"suffixes": [".jpg"], "by_colour": True}}, "unknown preprocessing by_colour"),
    ],
)
def test_a_state_of_another_version_is_refused(change, message):
    state = preprocessing_by_hparams(HPARAMS, UPSTREAM).state()
    with pytest.raises(ValueError, match=message):
        Preprocessing.from_state(state | change)
    del state["mean"]
    with pytest.raises(ValueError, match="damaged preprocessing"):
        Preprocessing.from_state(state)

"""Export of EmojiStyles as a folder tree."""

import json

import numpy as np
import pytest
from PIL import Image

from domainbed.datasets import get_dataset_class
from domainbed.datasets.emoji_styles import EmojiStyles
from domainbed.datasets.folder_layout import read_layout
from domainbed.download.export import export
from domainbed.errors import RunError, UsageError


@pytest.fixture(scope="module")
def whole(tmp_path_factory):
    return export("EmojiStyles", tmp_path_factory.mktemp("data"))


def test_the_folder_has_the_environments_classes_and_counts_of_the_dataset(whole):
    dataset = EmojiStyles(None, [], {})
    layout = read_layout(whole)
    assert layout.environments == tuple(dataset.ENVIRONMENTS)
    assert list(layout.classes) == dataset.class_names
    folder = get_dataset_class(str(whole))(None, [0], {"data_augmentation": False})
    assert folder.counts() == dataset.counts()
    assert [path.name for path in whole.parent.iterdir()] == ["EmojiStyles"]


def test_png_files_keep_every_pixel(whole):
    environment = EmojiStyles(None, [], {})[2]
    for index in range(0, len(environment), 97):
        label = EmojiStyles(None, [], {}).class_names[int(environment.targets[index])]
        with Image.open(whole / f"Line/{label}/{index:04}.png") as image:
            pixels = np.asarray(image)
        assert np.array_equal(255 - pixels.transpose(2, 0, 1), environment.images[index].numpy())


def test_jpeg_files_are_close_to_png_files(exported):
    png, jpeg = exported["png"], exported["jpeg"]
    names = sorted(path.relative_to(png).with_suffix(".jpg") for path in png.rglob("*.png"))
    assert names == sorted(path.relative_to(jpeg) for path in jpeg.rglob("*.*"))
    assert len(names) == 4 * 7 * 2
    for name in names:
        pairs = [Image.open(png / name.with_suffix(".png")), Image.open(jpeg / name)]
        assert [image.format for image in pairs] == ["PNG", "JPEG"]
        before, after = (np.asarray(image, dtype=float) for image in pairs)
        assert np.abs(before - after).mean() < 12  # different emoji differ by 30 or more


def test_an_existing_folder_is_not_overwritten(whole):
    with pytest.raises(UsageError, match="already exists; move it away"):
        export("EmojiStyles", whole.parent)


@pytest.mark.parametrize(
    ("name", "image_format", "message"),
    [
        ("PACS", "png", "--export takes one of EmojiStyles"),
        ("EmojiStyles", "gif", "--format takes one of png, jpeg"),
    ],
)
def test_other_datasets_and_formats_are_refused(name, image_format, message, tmp_path):
    with pytest.raises(UsageError, match=message):
        export(name, tmp_path, image_format)


def test_an_error_names_a_folder_that_cannot_be_written(tmp_path):
    (tmp_path / "data").write_text(json.dumps("a file"))
    with pytest.raises((RunError, UsageError), match="cannot be written"):
        export("EmojiStyles", tmp_path / "data")

"""Decoding of image files: more than 8 bits, transparency, truncation, and images of one colour."""

import concurrent.futures
import itertools
import logging

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

import domainbed
from domainbed.datasets import get_dataset_class
from domainbed.datasets.contract import build as build_dataset
from domainbed.datasets.image_checks import check_images, report_findings
from domainbed.datasets.image_decoding import (
    CONVERTED,
    Finding,
    UnreadableImage,
    conversion,
    decode,
    is_constant,
)
from domainbed.datasets.reading_rules import UPSTREAM, USER_FOLDER
from domainbed.errors import RunError
from domainbed.images.prepared import prepare
from domainbed.training.config import TrainConfig
from domainbed.training.run import build

COUNTS = {"ink": {"cat": 4, "dog": 4}, "oil": {"cat": 4, "dog": 4}}
HPARAMS = {"data_augmentation": True, "input_size": 16}
SETTINGS = {"hparams": '{"input_size": 16, "featurizer": "mlp", "mlp_width": 4}', "steps": 1}
RAMP = np.arange(64, dtype=np.float64).reshape(8, 8) / 63


@pytest.fixture
def folder(tmp_path, write_tree):
    write_tree(tmp_path / "paintings", COUNTS)
    return tmp_path / "paintings"


def as_floats(path):
    return np.asarray(decode(str(path), USER_FOLDER).image, dtype=np.float64)[:, :, 0] / 255


@pytest.mark.parametrize("name", ["x.png", "x.tif", "x.pgm", "x.jp2"])
def test_pixels_of_16_bits_are_scaled(tmp_path, name):
    Image.fromarray((65535 * RAMP).round().astype(np.uint16)).save(tmp_path / name)
    assert decode(str(tmp_path / name), USER_FOLDER).finding == Finding.SCALED
    assert np.abs(as_floats(tmp_path / name) - RAMP).max() < 0.5 / 255 + 1e-9


@pytest.mark.parametrize("kind", [np.float32, np.int32])
def test_tiffs_of_floats_and_of_32_bits_are_scaled(tmp_path, kind):
    values = RAMP if kind is np.float32 else (65535 * RAMP).round()
    Image.fromarray(values.astype(kind)).save(tmp_path / "x.tif")
    assert np.abs(as_floats(tmp_path / "x.tif") - RAMP).max() < 0.51 / 255


@pytest.mark.parametrize(
    ("values", "shown"),
    [
        (np.float32([[0, 255]]), "0.0 to 255.0, but expected are 0 to 1;"),
        (np.float32([[-0.5, 1]]), "-0.5 to 1.0, but expected are 0 to 1;"),
        (np.float32([[np.nan, 1]]), "nan to nan, but expected are 0 to 1;"),
        (np.int32([[0, 70000]]), "0 to 70000, but expected are 0 to 65535;"),
    ],
)
def test_other_ranges_are_refused_with_their_range(tmp_path, values, shown):
    Image.fromarray(values).save(tmp_path / "x.tif")
    with pytest.raises(UnreadableImage, match=rf"^image .*x\.tif has values from {shown}"):
        decode(str(tmp_path / "x.tif"), USER_FOLDER)


def icon():
    """A black drawing on nothing: only its alpha channel says what is drawn."""
    pixels = np.zeros((8, 8, 4), dtype=np.uint8)
    pixels[2:6, 3:5, 3] = 255
    return Image.fromarray(pixels)


@pytest.mark.parametrize("name", ["RGBA.png", "LA.png", "P.png", "RGBA.webp", "P.gif", "RGBA.tif"])
def test_transparent_images_are_laid_on_white(tmp_path, name):
    mode = "RGBA" if name.endswith(".gif") else name.partition(".")[0]  # PIL makes a palette for GIF
    icon().convert(mode).save(tmp_path / name, lossless=True)
    image, finding, _ = decode(str(tmp_path / name), USER_FOLDER)
    assert finding == conversion(str(tmp_path / name), USER_FOLDER) == Finding.TRANSPARENT
    assert np.array_equal(np.asarray(image)[:, :, 1], 255 - np.asarray(icon())[:, :, 3])


def test_upstreams_datasets_are_decoded_as_upstream_does(tmp_path):
    icon().save(tmp_path / "icon.png")
    image, finding, _ = decode(str(tmp_path / "icon.png"), UPSTREAM)
    assert (np.asarray(image).max(), finding) == (0, Finding.NOTHING)
    Image.fromarray(np.full((8, 8), 9000, dtype=np.uint16)).save(tmp_path / "deep.png")
    with Image.open(tmp_path / "deep.png") as opened:
        expected = np.asarray(opened.convert("RGB"))
    assert np.array_equal(np.asarray(decode(str(tmp_path / "deep.png"), UPSTREAM).image), expected)


@pytest.mark.parametrize("mode", ["RGB", "L", "1", "CMYK", "P", "RGBA", "YCbCr"])
def test_opaque_images_have_the_pixels_that_they_had_before(tmp_path, pictures, mode):
    path = tmp_path / "image.tiff"
    pictures[0].convert(mode).save(path)
    image, finding, _ = decode(str(path), USER_FOLDER)
    assert image.tobytes() == decode(str(path), UPSTREAM).image.tobytes()
    assert finding == conversion(str(path), USER_FOLDER) == Finding.NOTHING


def halve(path):
    path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])


@pytest.mark.parametrize("name", ["x.jpg", "x.png", "x.bmp"])
@pytest.mark.parametrize("rules", [UPSTREAM, USER_FOLDER])
def test_half_an_image_is_found(tmp_path, pictures, name, rules):
    pictures[0].resize((200, 200)).save(tmp_path / name)
    whole = decode(str(tmp_path / name), rules)
    assert whole.finding == Finding.NOTHING
    halve(tmp_path / name)
    image, finding, _ = decode(str(tmp_path / name), rules)
    assert finding == Finding.TRUNCATED
    rows = slice(140, None) if name == "x.bmp" else slice(60)  # a BMP begins with the last row
    assert np.array_equal(np.asarray(image)[rows], np.asarray(whole.image)[rows])


def test_threads_find_truncated_files_beside_whole_ones(tmp_path, pictures):
    paths = [tmp_path / f"{i}.jpg" for i in range(40)]
    for i, path in enumerate(paths):
        pictures[i % 12].save(path)
        if i % 3 == 0:
            halve(path)
    with concurrent.futures.ThreadPoolExecutor(4) as pool:
        findings = [decoded.finding for decoded in pool.map(decode, map(str, paths))]
    assert findings == [Finding.TRUNCATED if i % 3 == 0 else Finding.NOTHING for i in range(40)]


@pytest.mark.parametrize(
    "settings", [{}, {"check_images": True}, {"check_images": True, "cache_dir": "none"}]
)
def test_a_run_names_truncated_images_and_stops_unless_they_are_kept(folder, settings, caplog):
    for place in ("ink/cat/2.jpg", "oil/dog/2.jpg"):
        Image.effect_noise((64, 64), 90).convert("RGB").save(folder / place)
        halve(folder / place)
    names = f"{folder / 'ink/cat/2.jpg'}, {folder / 'oil/dog/2.jpg'}"
    settings = {"dataset": str(folder), **settings, **SETTINGS}
    numbers = "2 of 16 images of paintings are truncated or damaged"
    with pytest.raises(RunError, match=f"^{numbers}: {names}; replace or delete them, or use --truncated"):
        build(TrainConfig(**settings))
    caplog.clear()
    with caplog.at_level(logging.WARNING):
        build(TrainConfig(truncated="keep", **settings))
    assert f"warning: {numbers}, and are read as far as possible: {names}" in caplog.messages


def test_a_run_without_cache_stops_at_a_truncated_image(folder):
    for path in folder.glob("*/*/*.jpg"):
        halve(path)
    settings = {"dataset": str(folder), "cache_dir": "none", "num_workers": 0, **SETTINGS}
    with pytest.raises(RunError, match=r"is truncated or damaged; .* --truncated keep"):
        domainbed.train(**settings)
    assert len(domainbed.train(truncated="keep", **settings)) == 1


def test_truncated_images_of_upstreams_datasets_are_read_and_named(tmp_path, write_tree, caplog):
    folders = ("art_painting", "cartoon", "photo", "sketch")
    write_tree(tmp_path / "PACS", {name: {"dog": 3} for name in folders})
    halve(tmp_path / "PACS/photo/dog/2.jpg")
    with caplog.at_level(logging.WARNING):
        build(TrainConfig(dataset="PACS", data_dir=str(tmp_path), **SETTINGS))
    assert f"1 of 12 images of PACS are truncated or damaged, .*: {tmp_path}/PACS/photo/dog/2.jpg" in (
        caplog.text.replace("and are read as far as possible", ".*")
    )


@pytest.mark.parametrize("cached", [True, False])
def test_images_of_one_colour_and_converted_ones_are_counted(folder, tmp_path, caplog, cached):
    for name in ("cat/4.png", "dog/4.png"):
        icon().save(folder / "ink" / name)
    Image.new("RGB", (9, 9), "red").save(folder / "ink/cat/5.png")
    Image.fromarray(np.full((8, 8), 9000, dtype=np.uint16)).save(folder / "oil/cat/6.png")
    dataset = get_dataset_class(str(folder))(None, [0], HPARAMS)
    if cached:
        prepare(dataset, tmp_path / "cache", torch.device("cpu"))
    else:
        check_images(dataset)
    caplog.clear()
    with caplog.at_level(logging.WARNING):
        report_findings(dataset, keep_truncated=False)
    start = "warning: {} of 20 images of paintings have "
    assert [message.partition(":")[0] + ":" + message.split(":")[1] for message in caplog.messages] == [
        start.format(1) + "pixels of 16 bits or floats, which are scaled to 8 bits",
        start.format(2) + "transparent pixels, which are laid on white",
        start.format(2) + "one colour only",
    ]
    assert str(folder / "ink/cat/5.png") in caplog.messages[2]


@pytest.mark.parametrize("cache_dir", [None, "none"])
def test_only_images_with_other_pixels_than_before_change_the_version_of_the_data(folder, cache_dir):
    def data():
        settings = {"dataset": str(folder), "cache_dir": cache_dir}
        return build(TrainConfig(**settings, **SETTINGS)).dataset.summary

    with Image.open(folder / "ink/cat/0.png") as image:
        image.convert("RGBA").save(folder / "ink/cat/0.png")
    before = data()
    assert before["version"] == 1
    icon().save(folder / "ink/cat/0.png")
    assert data()["version"] == 2


def test_findings_of_converted_images_are_those_that_releases_lost():
    assert CONVERTED == Finding.SCALED | Finding.TRANSPARENT


def test_a_list_is_decoded_as_a_folder(folder):
    icon().save(folder / "ink/cat/0.png")
    (folder / "list.csv").write_text(
        "path,label,environment\nink/cat/0.png,cat,ink\nink/dog/0.png,dog,ink\n"
        "oil/cat/1.png,cat,oil\noil/dog/0.png,dog,oil\n"
    )
    dataset = build_dataset(get_dataset_class(str(folder / "list.csv")), None, [0], HPARAMS)
    assert np.asarray(dataset[0].image(0)).max() == 255


@settings(deadline=None)
@given(st.integers(1, 5), st.integers(1, 5), st.data())
def test_an_image_has_one_colour_if_all_pixels_are_equal(height, width, data):
    pixels = np.full((height, width, 3), 7, dtype=np.uint8)
    assert is_constant(pixels)
    y, x, channel = (data.draw(st.integers(0, size - 1)) for size in pixels.shape)
    pixels[y, x, channel] = 8
    assert is_constant(pixels) is (height * width == 1)


def test_an_image_with_one_other_pixel_does_not_have_one_colour():
    for y, x in itertools.product(range(20), range(33)):
        pixels = np.zeros((20, 33, 3), dtype=np.uint8)
        pixels[y, x, 1] = 1
        assert not is_constant(pixels)

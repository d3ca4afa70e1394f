"""Spawrious."""

import pytest
import torch
from PIL import Image
from torch.utils.data import DataLoader

from domainbed.datasets import get_dataset_class
from domainbed.datasets.base import labels_of
from domainbed.datasets.dataset_preprocessing import preprocessing_of
from domainbed.datasets.image_decoding import decode
from domainbed.datasets.spawrious import CustomImageFolder, SpawriousBenchmark
from domainbed.errors import UsageError

CLASSES = ["bulldog", "corgi", "dachshund", "labrador"]
LOCATIONS = ["beach", "desert", "dirt", "jungle", "mountain", "snow"]
HPARAMS = {"data_augmentation": True, "input_size": 16}
IMAGES = 2

# Level -> training locations of bulldog, dachshund, labrador and corgi, test locations, and filler.
O2O = {
    "easy": ("desert jungle dirt snow", "dirt snow desert jungle", "beach"),
    "medium": ("mountain beach dirt jungle", "jungle dirt beach snow", "desert"),
    "hard": ("jungle mountain snow desert", "mountain snow desert jungle", "beach"),
}
M2M = {
    "easy": ("desert mountain dirt jungle", "dirt jungle mountain desert"),
    "medium": ("beach snow mountain desert", "desert mountain beach snow"),
    "hard": ("dirt jungle snow beach", "snow beach dirt jungle"),
}


@pytest.fixture(scope="module")
def root(tmp_path_factory, pictures):
    folder = tmp_path_factory.mktemp("spawrious")
    for split in "01":
        for location in LOCATIONS:
            for name in CLASSES:
                place = folder / split / location / name
                place.mkdir(parents=True)
                for i in reversed(range(IMAGES)):
                    pictures[i].save(place / f"{name}_{i}.png")
    return folder


def places(environment):
    """(split, location, class) of every folder of an environment, in order. Asserts that labels match."""
    parts = [path.split("/")[-4:] for path, _ in environment.samples]
    assert [part[2] for part in parts] == [CLASSES[label] for label in environment.targets]
    return list(dict.fromkeys((split, location, name) for split, location, name, _ in parts))


@pytest.mark.parametrize("level", O2O)
def test_one_to_one(level, root):
    dataset = get_dataset_class(f"SpawriousO2O_{level}")(str(root), [0], HPARAMS)
    group, test, filler = O2O[level]
    order = ["bulldog", "dachshund", "labrador", "corgi"]
    for split in "01":
        expected = [(split, place, name) for place, name in zip(group.split(), order, strict=True)]
        expected += [(split, filler, name) for name in order]
        assert places(dataset[1 + int(split)]) == expected
    assert places(dataset[0]) == [
        (split, place, name) for split in "01" for place, name in zip(test.split(), order, strict=True)
    ]
    assert len(dataset[0]) == 8 * IMAGES


@pytest.mark.parametrize("level", M2M)
def test_many_to_many(level, root):
    dataset = get_dataset_class(f"SpawriousM2M_{level}")(str(root), [0], HPARAMS)

    def expected(locations):
        a, b, c, d = locations.split()
        one = [("0", a, "bulldog"), ("0", b, "dachshund"), ("0", c, "labrador"), ("0", d, "corgi")]
        two = [("0", b, "bulldog"), ("0", a, "dachshund"), ("0", d, "labrador"), ("0", c, "corgi")]
        return one, two

    group, test = M2M[level]
    assert (places(dataset[1]), places(dataset[2])) == expected(group)
    first, second = expected(test)
    assert places(dataset[0]) == first + second


def test_limits_are_upstreams():
    train, test = SpawriousBenchmark.build_type1_combination("abcd", "efgh", "z")
    assert train[("bulldog",)] == [("a", 3072), ("a", 2756)]
    assert train[("bulldog", "dachshund", "labrador", "corgi")] == [("z", 96), ("z", 412)]
    assert test[("corgi",)] == ["h", "h"]
    train, test = SpawriousBenchmark.build_type2_combination("abcd", "efgh")
    assert train[("dachshund",)] == [("b", 3168), ("a", 3168)]
    assert list(test[("labrador",)]) == ["g", "h"]


def test_a_limit_takes_the_first_files_by_name(root):
    place = root / "0" / "snow" / "corgi"
    folder = CustomImageFolder(place, 1, limit=1)
    assert folder.samples == [(str(place / "corgi_0.png"), 1)]
    image, label = folder[0]
    assert isinstance(image, Image.Image)
    assert label.dtype == torch.int64
    assert label.shape == ()
    both = SpawriousBenchmark({("corgi",): [("snow", 1), "snow"]}, ["snow"], str(root))
    assert [len(environment) for environment in both.datasets] == [4 * IMAGES, 1, IMAGES]


def test_locations_alone_take_all_classes(root):
    dataset = SpawriousBenchmark(["beach", "snow"], ["dirt"], str(root), hparams=HPARAMS)
    assert places(dataset[2]) == [("0", "snow", name) for name in CLASSES]
    assert dataset.counts()["Test"] == dict.fromkeys(CLASSES, IMAGES)


def test_interface(root):
    dataset = get_dataset_class("SpawriousM2M_hard")(str(root), [1], HPARAMS)
    assert (dataset.input_shape, dataset.num_classes, len(dataset)) == ((3, 16, 16), 4, 3)
    assert list(dataset.ENVIRONMENTS) == ["Test", "SC_group_1", "SC_group_2"]
    torch.manual_seed(0)
    # `test_envs` does not determine which environments are augmented.
    varies = [any(not torch.equal(e[0][0], e[0][0]) for _ in range(10)) for e in dataset.datasets]
    assert varies == [False, True, True]
    x, y = next(iter(DataLoader(dataset[1], batch_size=4)))
    assert tuple(x.shape) == (4, 3, 16, 16)
    assert y.dtype == torch.int64
    assert labels_of(dataset[1])[:4].tolist() == y.tolist()
    assert get_dataset_class("SpawriousO2O_easy")(
        str(root), [], {"data_augmentation": False}
    ).input_shape == (
        3,
        224,
        224,
    )


def test_the_preprocessing_that_a_model_keeps_makes_the_same_inputs_of_files(root):
    dataset = get_dataset_class("SpawriousO2O_easy")(str(root), [], HPARAMS)
    kept, environment = preprocessing_of(dataset), dataset[1]
    x, _ = environment.plain()[0]
    assert kept(decode(environment.paths()[0], kept.rules).image).equal(x)


def test_missing_folders_are_named(root, tmp_path):
    cls = get_dataset_class("SpawriousO2O_easy")
    assert "--data_dir" in cls.missing(None)
    assert cls.missing(str(root)) is None
    with pytest.raises(UsageError, match="needs Spawrious' folders 0 and 1 in "):
        cls(str(tmp_path), [], HPARAMS)
    (tmp_path / "0").mkdir()
    (tmp_path / "1").mkdir()
    with pytest.raises(UsageError, match=r"0/dirt/bulldog cannot be read: No such file"):
        cls(str(tmp_path), [], HPARAMS)
    (tmp_path / "0" / "dirt" / "bulldog").mkdir(parents=True)
    with pytest.raises(UsageError, match=r"0/dirt/bulldog has no images"):
        cls(str(tmp_path), [], HPARAMS)


@pytest.mark.parametrize(
    "name", [*(f"SpawriousO2O_{level}" for level in O2O), *(f"SpawriousM2M_{level}" for level in M2M)]
)
def test_a_run_gives_the_same_records_with_and_without_the_cache(name, root, assert_cache_changes_nothing):
    assert_cache_changes_nothing(name, root, augment_evaluation=False)

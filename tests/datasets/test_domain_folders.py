"""The image datasets with known environments, each in its own folder."""

import itertools
import shutil

import pytest

from domainbed.datasets import get_dataset_class, num_environments
from domainbed.errors import UsageError

HPARAMS = {"data_augmentation": False, "input_size": 16}

# Name -> folder, display names of the environments, their folders, checkpoint frequency.
KNOWN = {
    "VLCS": ("VLCS", "C L S V", ["Caltech101", "LabelMe", "SUN09", "VOC2007"], 300),
    "PACS": ("PACS", "A C P S", ["art_painting", "cartoon", "photo", "sketch"], 300),
    "OfficeHome": ("office_home", "A C P R", ["Art", "Clipart", "Product", "Real World"], 300),
    "TerraIncognita": (
        "terra_incognita",
        "L100 L38 L43 L46",
        ["location_100", "location_38", "location_43", "location_46"],
        300,
    ),
    "DomainNet": (
        "domain_net",
        "clip info paint quick real sketch",
        ["clipart", "infograph", "painting", "quickdraw", "real", "sketch"],
        1000,
    ),
    "SVIRO": (
        "sviro",
        "aclass escape hilux i3 lexus tesla tiguan tucson x5 zoe",
        ["aclass", "escape", "hilux", "i3", "lexus", "tesla", "tiguan", "tucson", "x5", "zoe"],
        300,
    ),
}
by_name = pytest.mark.parametrize("name", KNOWN)


@by_name
def test_environments_are_the_expected_folders(name, tmp_path, write_tree):
    folder, displayed, folders, checkpoint_freq = KNOWN[name]
    # Each environment has another number of images.
    write_tree(tmp_path / folder, {f: {"b": 1, "a": i + 1} for i, f in reversed(list(enumerate(folders)))})
    cls = get_dataset_class(name)
    assert list(cls.ENVIRONMENTS) == displayed.split()
    assert num_environments(name) == len(folders)
    assert checkpoint_freq == cls.CHECKPOINT_FREQ
    assert cls.missing(str(tmp_path)) is None
    dataset = cls(str(tmp_path), [0], HPARAMS)
    assert dataset.counts() == {shown: {"a": i + 1, "b": 1} for i, shown in enumerate(displayed.split())}
    assert dataset.dir == str(tmp_path / folder)


@by_name
def test_an_error_names_the_expected_folder_and_its_contents(name, tmp_path):
    folder, _, folders, _ = KNOWN[name]
    cls = get_dataset_class(name)
    assert "--data_dir" in cls.missing(None)
    assert "does not exist" in cls.missing(str(tmp_path / "nowhere"))
    message = cls.missing(str(tmp_path))
    assert message.startswith(f"{name}: {tmp_path / folder} does not exist")
    assert all(each in message for each in folders)
    with pytest.raises(UsageError, match=f"{folder} does not exist"):
        cls(str(tmp_path), [0], HPARAMS)


def test_an_extra_or_absent_environment_is_refused(tmp_path, write_tree):
    write_tree(
        tmp_path / "PACS", {name: {"dog": 1} for name in ("art_painting", "cartoon", "photo", "backup")}
    )
    cls = get_dataset_class("PACS")
    command = (
        rf'run ".*download --datasets PACS --data_dir {tmp_path} --verify" to list everything that is wrong$'
    )
    with pytest.raises(UsageError, match=rf"PACS: .*it lacks sketch and also has backup; {command}"):
        cls(str(tmp_path), [0], HPARAMS)
    (tmp_path / "PACS" / "backup").rename(tmp_path / "PACS" / "sketch")
    assert cls.missing(str(tmp_path)) is None


def test_environments_with_different_classes_are_refused(tmp_path, write_tree):
    folders = KNOWN["VLCS"][2]
    write_tree(
        tmp_path / "VLCS", {name: {"bird": 1, "car": 1} for name in folders[:3]} | {folders[3]: {"bird": 1}}
    )
    with pytest.raises(UsageError, match="VOC2007 lacks car"):
        get_dataset_class("VLCS")(str(tmp_path), [0], HPARAMS)


@by_name
def test_a_run_on_exported_images_gives_the_same_records_with_and_without_the_cache(
    name, tmp_path, exported, assert_cache_changes_nothing
):
    """Environments alternate between PNG and JPEG files."""
    root, _, folders, _ = KNOWN[name]
    styles = [
        tree / style for style in ("Flat", "Gradient", "Line", "Rendered") for tree in exported.values()
    ]
    for style, folder in zip(itertools.cycle(styles), folders, strict=False):
        shutil.copytree(style, tmp_path / root / folder)
    assert_cache_changes_nothing(name, tmp_path, augment_evaluation=False)

"""WILDSCamelyon and WILDSFMoW, on small data in the package's layout."""

import importlib.util
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from PIL import Image
from torch.utils.data import DataLoader

from domainbed.datasets import get_dataset_class
from domainbed.datasets.base import labels_of
from domainbed.datasets.dataset_preprocessing import preprocessing_of
from domainbed.datasets.image_decoding import decode
from domainbed.datasets.wilds import WILDSDataset, WILDSEnvironment
from domainbed.errors import RunError, UsageError

HPARAMS = {"data_augmentation": True, "input_size": 16}
needs_wilds = pytest.mark.skipif(
    importlib.util.find_spec("wilds") is None, reason="the package wilds is not installed"
)

# Hospital -> labels of its patches.
CENTERS = {0: [0, 1, 1], 1: [1, 0], 2: [0, 1], 3: [0, 1], 4: [0, 1]}

# Split, category, country, timestamp. Regions are numbered in order of appearance.
FMOW = [
    ("train", "airport", "CHN", "2015-04-12T19:09:55.123Z"),
    ("train", "zoo", "DEU", "2014-02-03T08:24:39Z"),
    ("seq", "dam", "DEU", "2012-02-03T08:24:39Z"),
    ("val", "airport_hangar", "KEN", "2013-07-01T00:00:00Z"),
    ("test", "zoo", "BRA", "2017-03-01T12:00:00.5Z"),
    ("train", "dam", "AUS", "2010-12-31T23:59:59.999999Z"),
    ("test", "airport", "XXX", "2016-01-01T00:00:00Z"),
    ("train", "dam", "CHN", "2002-01-01T00:00:00Z"),
]
REGIONS = {"CHN": "Asia", "DEU": "Europe", "KEN": "Africa", "BRA": "Americas", "AUS": "Oceania"}


@pytest.fixture
def camelyon(tmp_path, pictures):
    """A data directory with a small Camelyon17."""
    home = tmp_path / "camelyon17_v1.0"
    home.mkdir()
    (home / "RELEASE_v1.0.txt").touch()
    rows = [",patient,node,x_coord,y_coord,tumor,slide,center,split"]
    for center, labels in CENTERS.items():
        for i, label in enumerate(labels):
            patient = f"{center:03d}"
            rows.append(f"{len(rows) - 1},{patient},{i},{10 * i},7,{label},{center},{center},0")
            folder = home / "patches" / f"patient_{patient}_node_{i}"
            folder.mkdir(parents=True)
            pictures[center].resize((96, 96)).save(
                folder / f"patch_patient_{patient}_node_{i}_x_{10 * i}_y_7.png"
            )
    (home / "metadata.csv").write_text("\n".join(rows) + "\n")
    return tmp_path


@pytest.fixture
def fmow(tmp_path, pictures):
    """A data directory with a small FMoW that has timestamps with and without fractions of a second."""
    home = tmp_path / "fmow_v1.1"
    (home / "images").mkdir(parents=True)
    (home / "RELEASE_v1.1.txt").touch()
    rows = ["split,category,country_code,timestamp", *(",".join(row) for row in FMOW)]
    (home / "rgb_metadata.csv").write_text("\n".join(rows) + "\n")
    codes = ["alpha-3,region", *(",".join(pair) for pair in REGIONS.items())]
    (home / "country_code_mapping.csv").write_text("\n".join(codes) + "\n")
    for i in range(len(FMOW)):
        pictures[i].resize((224, 224)).save(home / "images" / f"rgb_img_{i}.png")
    return tmp_path


@needs_wilds
@pytest.mark.parametrize("name", ["WILDSCamelyon", "WILDSFMoW"])
def test_a_run_gives_the_same_records_with_and_without_the_cache(
    name, camelyon, fmow, assert_cache_changes_nothing
):
    assert_cache_changes_nothing(name, camelyon, augment_evaluation=False)


@needs_wilds
def test_camelyon_has_an_environment_for_each_hospital(camelyon, pictures):
    dataset = get_dataset_class("WILDSCamelyon")(str(camelyon), [0], HPARAMS)
    assert [environment.name for environment in dataset.datasets] == list(dataset.ENVIRONMENTS)
    assert [labels_of(environment).tolist() for environment in dataset.datasets] == list(CENTERS.values())
    assert (dataset.num_classes, dataset.input_shape) == (2, (3, 16, 16))
    assert dataset.counts()["hospital_0"] == {"0": 1, "1": 2}
    raw = WILDSEnvironment(dataset[3].dataset, "hospital", 3)
    image, label = raw[1]
    assert image.tobytes() == pictures[3].resize((96, 96)).tobytes()
    assert label.item() == 1
    assert label.dtype == torch.int64


@needs_wilds
def test_only_sources_are_augmented(camelyon):
    dataset = get_dataset_class("WILDSCamelyon")(str(camelyon), [0, 4], HPARAMS)
    torch.manual_seed(0)

    def varies(environment):
        return any(not torch.equal(environment[0][0], environment[0][0]) for _ in range(10))

    assert [varies(environment) for environment in dataset.datasets] == [False, True, True, True, False]
    assert not any(varies(environment.plain()) for environment in dataset.datasets)
    x, y = next(iter(DataLoader(dataset[1], batch_size=2)))
    assert tuple(x.shape) == (2, 3, 16, 16)
    assert y.tolist() == CENTERS[1]


@needs_wilds
@pytest.mark.parametrize("name", ["WILDSCamelyon", "WILDSFMoW"])
def test_the_preprocessing_that_a_model_keeps_makes_the_same_inputs_of_files(name, camelyon, fmow):
    dataset = get_dataset_class(name)(str(camelyon), [0], HPARAMS)
    kept = preprocessing_of(dataset)
    for environment in dataset.datasets:
        for path, (x, _) in zip(environment.paths(), environment.plain(), strict=True):
            assert kept(decode(path, kept.rules).image).equal(x)


@needs_wilds
def test_fmow_loads_with_both_formats_of_timestamps(fmow, pictures):
    dataset = get_dataset_class("WILDSFMoW")(str(fmow), [0], HPARAMS)
    assert [environment.name for environment in dataset.datasets] == list(dataset.ENVIRONMENTS)
    assert [len(environment) for environment in dataset.datasets] == [2, 1, 1, 1, 1, 1]
    assert dataset.num_classes == 62
    assert [labels_of(environment).tolist() for environment in dataset.datasets[:3]] == [[0, 12], [61], [1]]
    # Sequestered rows count in the numbers of the image files.
    image, _ = WILDSEnvironment(dataset[2].dataset, "region", 2)[0]
    assert image.tobytes() == pictures[3].resize((224, 224)).tobytes()


@needs_wilds
def test_years_and_splits_of_fmow_are_right_for_both_formats_of_timestamps(fmow):
    wilds_dataset = get_dataset_class("WILDSFMoW")(str(fmow), [0], HPARAMS)[0].dataset
    year = wilds_dataset.metadata_array[:, wilds_dataset.metadata_fields.index("year")]
    assert (year + 2002).tolist() == [int(row[3][:4]) for row in FMOW if row[0] != "seq"]
    names = {number: name for name, number in wilds_dataset.split_dict.items()}
    found = [names.get(int(number)) for number in wilds_dataset.split_array]
    assert found == [None, None, "val", "test", "train", "test", "train"]


@needs_wilds
def test_pandas_is_unchanged_afterwards(fmow):
    import pandas as pd

    get_dataset_class("WILDSFMoW")(str(fmow), [0], HPARAMS)
    from wilds.datasets import fmow_dataset

    assert fmow_dataset.pd is pd


@needs_wilds
def test_data_with_other_environments_is_refused(camelyon):
    table = camelyon / "camelyon17_v1.0" / "metadata.csv"
    rows = [row for row in table.read_text().splitlines() if ",3,3,0" not in row]
    table.write_text("\n".join(rows) + "\n")
    with pytest.raises(UsageError, match="has hospital_0, hospital_1, hospital_2, hospital_4; download"):
        get_dataset_class("WILDSCamelyon")(str(camelyon), [0], HPARAMS)


@needs_wilds
@pytest.mark.parametrize("content", ["", "a,b\n1,2\n"])
def test_damaged_tables_fail_in_one_line(camelyon, content):
    (camelyon / "camelyon17_v1.0" / "metadata.csv").write_text(content)
    with pytest.raises(RunError, match=r"camelyon17_v1\.0 cannot be read"):
        get_dataset_class("WILDSCamelyon")(str(camelyon), [0], HPARAMS)


@needs_wilds
@pytest.mark.parametrize("content", [None, b"junk"])
def test_an_unreadable_image_is_named(camelyon, content):
    dataset = get_dataset_class("WILDSCamelyon")(str(camelyon), [0], HPARAMS)
    (path,) = Path(camelyon).rglob("patch_patient_002_node_1*.png")
    path.unlink()
    if content is not None:
        path.write_bytes(content)
    with pytest.raises(RunError, match=r"patch_patient_002_node_1_x_10_y_7\.png"):
        dataset[2][1]


@needs_wilds
def test_no_thread_looks_for_newer_versions_on_the_network(camelyon):
    program = f"""
import sys, threading, types
checked = []
outdated = sys.modules["outdated"] = types.ModuleType("outdated")
outdated.check_outdated = lambda package, version: checked.append(package) or (False, version)
started = []
start = threading.Thread.start
threading.Thread.start = lambda self: started.append(self._target) or start(self)
from domainbed.datasets.wilds import WILDSCamelyon
WILDSCamelyon({str(camelyon)!r}, [0], {HPARAMS!r})
assert sys.modules["outdated"] is outdated
print(checked, [f"{{f.__module__}}" for f in started if f])
"""
    run = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)
    checked, started = run.stdout.strip().split("] [")
    assert checked == "["
    assert "wilds" not in started
    assert "outdated" not in started


@pytest.mark.parametrize("name", ["WILDSCamelyon", "WILDSFMoW"])
def test_a_missing_package_is_reported_in_one_line(name, tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, "wilds", None)
    cls = get_dataset_class(name)
    assert cls.missing(str(tmp_path)) == (
        f"{name} needs the package wilds, which is not installed; run: pip install wilds"
    )
    with pytest.raises(UsageError, match="pip install wilds"):
        cls(str(tmp_path), [0], HPARAMS)


@needs_wilds
def test_an_error_names_the_missing_folder_and_file(tmp_path):
    assert "--data_dir" in get_dataset_class("WILDSFMoW").missing(None)
    assert "camelyon17_v1.0" in get_dataset_class("WILDSCamelyon").missing(str(tmp_path))
    with pytest.raises(UsageError, match=r"needs the folder .*fmow_v1\.1 .* including RELEASE_v1\.1\.txt"):
        get_dataset_class("WILDSFMoW")(str(tmp_path), [0], HPARAMS)


class Arrays:
    """A dataset with the interface of wilds whose inputs are arrays, as for some of its datasets."""

    metadata_fields = ["place"]
    n_classes = 3

    def __init__(self):
        self.metadata_array = torch.tensor([[7], [-1], [7]])
        self.y_array = torch.tensor([2, 0, 1])

    def get_input(self, row):
        return torch.full((4, 5, 3), row, dtype=torch.uint8).numpy()


def test_the_base_class_supports_other_wilds_datasets():
    dataset = WILDSDataset(Arrays(), "place", [], False, {"input_size": 8})
    assert list(dataset.ENVIRONMENTS) == ["place_-1", "place_7"]
    assert dataset.metadata_values(Arrays(), "place") == [-1, 7]
    assert labels_of(dataset[1]).tolist() == [2, 1]
    assert dataset.num_classes == 3
    image, _ = WILDSEnvironment(Arrays(), "place", 7)[1]
    assert isinstance(image, Image.Image)
    assert image.getpixel((0, 0)) == (2, 2, 2)

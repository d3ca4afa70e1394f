"""Inventories of folders in the known datasets' formats."""

import struct

import pytest

from domainbed.download.inventory import camelyon17, fmow, idx_files, image_tree
from domainbed.download.manifest import list_files


def inventory(function, folder):
    names = tuple(path.name for path in folder.iterdir())
    return function(folder, list_files(folder, names))


def test_images_are_counted_below_every_folder():
    found = image_tree(None, {"a/cat/x/1.png": 1, "a/cat/2.JPG": 1, "a/readme.txt": 1, "b/cat/1.png": 1})
    assert found.counts == {"a": 2, "a/cat": 2, "a/cat/x": 1, "b": 1, "b/cat": 1}
    assert not found.missing
    assert not found.surplus


def test_absent_classes_are_missing_and_misplaced_images_are_surplus():
    found = image_tree(None, {"a/cat/1.png": 1, "a/dog/1.png": 1, "b/cat/1.png": 1, "b/2.png": 1, "3.png": 1})
    assert found.missing == ["b/dog/"]
    assert found.surplus == ["b/2.png", "3.png"]


def test_idx_files_of_mnist(tmp_path, write_mnist):
    write_mnist(tmp_path)
    raw = tmp_path / "MNIST/raw"
    found = inventory(idx_files, raw)
    assert sorted(found.counts.values()) == [30, 30, 60, 60]
    labels = raw / "train-labels-idx1-ubyte"
    for content in (b"", b"\0\0\10", labels.read_bytes()[:-1], struct.pack(">II", 2049, 60) + bytes(61)):
        labels.write_bytes(content)
        assert inventory(idx_files, raw).unreadable == [labels.name]
    labels.write_bytes(struct.pack(">II", 0x0D01, 1) + bytes(1))  # floats
    assert inventory(idx_files, raw).unreadable == [labels.name]


def test_camelyons_table_names_the_expected_patches(tmp_path):
    columns = "index,patient,node,x_coord,y_coord,tumor,slide,center,split"
    rows = [f"{i},00{i},1,{i},2,0,0,{i % 2},0" for i in range(3)]
    (tmp_path / "metadata.csv").write_text("\n".join([columns, *rows]))
    for i in (0, 1, 7):
        folder = tmp_path / f"patches/patient_00{i}_node_1"
        folder.mkdir(parents=True)
        (folder / f"patch_patient_00{i}_node_1_x_{i}_y_2.png").touch()
    found = inventory(camelyon17, tmp_path)
    assert found.counts == {"hospital_0": 2, "hospital_1": 1}
    assert found.missing == ["patches/patient_002_node_1/patch_patient_002_node_1_x_2_y_2.png"]
    assert found.surplus == ["patches/patient_007_node_1/patch_patient_007_node_1_x_7_y_2.png"]
    (tmp_path / "metadata.csv").write_text("index,patient\n1,2\n")
    assert inventory(camelyon17, tmp_path).unreadable == ["metadata.csv"]
    (tmp_path / "metadata.csv").write_text("")
    found = inventory(camelyon17, tmp_path)
    assert (found.counts, len(found.surplus)) == ({}, 3)


def test_fmows_regions_are_numbered_by_occurrence_and_sequestered_images_are_ignored(tmp_path):
    (tmp_path / "country_code_mapping.csv").write_text("alpha-3,region\nKEN,Africa\nFRA,Europe\n")
    rows = ["train,zoo,FRA", "seq,zoo,KEN", "val,zoo,KEN", "test,zoo,XXX", "train,zoo,FRA"]
    (tmp_path / "rgb_metadata.csv").write_text("\n".join(["split,category,country_code", *rows]))
    (tmp_path / "images").mkdir()
    for i in (0, 1, 2, 3):
        (tmp_path / f"images/rgb_img_{i}.png").touch()
    (tmp_path / "images/other.png").touch()
    found = inventory(fmow, tmp_path)
    assert found.counts == {"region_0": 2, "region_1": 1, "region_2": 1}
    assert found.missing == ["images/rgb_img_4.png"]
    assert found.surplus == ["images/other.png"]


@pytest.mark.parametrize("name", ["rgb_metadata.csv", "country_code_mapping.csv"])
def test_a_missing_table_of_fmow_is_unreadable(tmp_path, name):
    (tmp_path / "country_code_mapping.csv").write_text("alpha-3,region\n")
    (tmp_path / "rgb_metadata.csv").write_text("split,category,country_code\ntrain,zoo,FRA\n")
    (tmp_path / name).unlink()
    assert inventory(fmow, tmp_path).unreadable

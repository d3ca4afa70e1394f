"""From unpacked archives to the folders of datasets."""

import json

import pytest

from domainbed.download.arrange import (
    DUPLICATES,
    find_folder,
    terra_incognita,
    wilds_release,
    without_duplicates,
)
from domainbed.errors import RunError

PLACES = ("location_100", "location_38")


def write(folder, files):
    for name, content in files.items():
        path = folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(content if isinstance(content, bytes) else content.encode())


def paths_in(folder):
    return sorted(path.relative_to(folder).as_posix() for path in folder.rglob("*") if path.is_file())


def test_the_highest_folder_with_all_entries_is_found(tmp_path):
    write(tmp_path, {"kfold/photo/1": b"", "kfold/sketch/1": b"", "__MACOSX/kfold/photo/._1": b""})
    assert find_folder(tmp_path, ("photo", "sketch")) == tmp_path / "kfold"
    write(tmp_path, {"photo/1": b"", "sketch/1": b""})
    assert find_folder(tmp_path, ("photo", "sketch")) == tmp_path


def test_an_error_says_what_was_expected_and_what_was_found(tmp_path):
    write(tmp_path, {"kfold/photo/1": b""})
    with pytest.raises(RunError, match="should contain a folder with photo, sketch, but they contain kfold"):
        find_folder(tmp_path, ("photo", "sketch"))


def test_duplicates_of_domainnet_are_removed(tmp_path):
    lines = "clipart/cat/1.jpg\nclipart/cat/9.jpg\n\n../victim\n"
    write(tmp_path, {"victim": b"", f"in/{DUPLICATES}": lines})
    write(tmp_path / "in", {f"{name}/cat/{i}.jpg": b"" for name in ("clipart", "real") for i in range(2)})
    folder = without_duplicates(tmp_path / "in", ("clipart", "real"))
    assert paths_in(folder) == ["clipart/cat/0.jpg", "real/cat/0.jpg", "real/cat/1.jpg"]
    assert (tmp_path / "victim").exists()


@pytest.fixture
def terra(tmp_path):
    """Images of TerraIncognita, and annotations distributed over five files."""
    images = [
        {"id": "a", "file_name": "a.jpg", "location": 38},
        {"id": "b", "file_name": "b.jpg", "location": 100},
        {"id": "c", "file_name": "c.jpg", "location": 33},
        {"id": "d", "file_name": "d.jpg", "location": 100},
    ]
    categories = [{"id": 1, "name": "cat"}, {"id": 2, "name": "dog"}, {"id": 3, "name": "car"}]
    annotations = [("a", 1), ("a", 2), ("a", 1), ("b", 2), ("c", 1), ("d", 3)]
    names = ("cis_test", "cis_val", "train", "trans_test", "trans_val")
    for i, name in enumerate(names):
        part = {
            "images": images[i : i + 1],
            "annotations": [{"image_id": a, "category_id": c} for a, c in annotations[i::5]],
            "categories": categories,
        }
        write(tmp_path, {f"eccv_18_annotation_files/{name}_annotations.json": json.dumps(part)})
    write(tmp_path, {f"eccv_18_all_images_sm/{name}.jpg": name for name in "abcd"})
    return tmp_path


def test_images_are_copied_to_the_folders_of_their_annotations(terra):
    folder = terra_incognita(terra, PLACES)
    assert paths_in(folder) == ["location_100/dog/b.jpg", "location_38/cat/a.jpg", "location_38/dog/a.jpg"]
    assert (folder / "location_38/dog/a.jpg").read_text() == "a"


def test_an_error_names_a_missing_image(terra):
    (terra / "eccv_18_all_images_sm/b.jpg").unlink()
    with pytest.raises(RunError, match=r"image b\.jpg has annotations but is missing"):
        terra_incognita(terra, PLACES)


@pytest.mark.parametrize("content", [None, "{", "[]", '{"images": []}'])
def test_an_error_names_an_invalid_annotation_file(terra, content):
    path = terra / "eccv_18_annotation_files/train_annotations.json"
    if content is None:
        path.unlink()
    else:
        path.write_text(content)
    with pytest.raises(RunError, match=r"annotation file train_annotations\.json cannot be read"):
        terra_incognita(terra, PLACES)


def test_a_release_of_wilds_gets_its_marker_file(tmp_path):
    write(tmp_path, {"top/metadata.csv": b"", "top/patches/1": b""})
    folder = wilds_release("RELEASE_v1.0.txt")(tmp_path, ("RELEASE_v1.0.txt", "metadata.csv", "patches"))
    assert paths_in(folder) == ["RELEASE_v1.0.txt", "metadata.csv", "patches/1"]

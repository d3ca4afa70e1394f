import json

import pytest

from domainbed.download.arrange import DUPLICATES, holder, terra_incognita, wilds_release, without_duplicates
from domainbed.errors import RunError

PLACES = ("location_100", "location_38")


def write(folder, files):
    for name, content in files.items():
        path = folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(content if isinstance(content, bytes) else content.encode())


def listed(folder):
    return sorted(path.relative_to(folder).as_posix() for path in folder.rglob("*") if path.is_file())


def test_the_nearest_folder_that_holds_all(tmp_path):
    write(tmp_path, {"kfold/photo/1": b"", "kfold/sketch/1": b"", "__MACOSX/kfold/photo/._1": b""})
    assert holder(tmp_path, ("photo", "sketch")) == tmp_path / "kfold"
    write(tmp_path, {"photo/1": b"", "sketch/1": b""})
    assert holder(tmp_path, ("photo", "sketch")) == tmp_path


def test_what_came_is_something_else(tmp_path):
    write(tmp_path, {"kfold/photo/1": b""})
    with pytest.raises(RunError, match="no folder with photo, sketch; it has kfold"):
        holder(tmp_path, ("photo", "sketch"))


def test_duplicates_are_left_out(tmp_path):
    lines = "clipart/cat/1.jpg\nclipart/cat/9.jpg\n\n../victim\n"
    write(tmp_path, {"victim": b"", f"in/{DUPLICATES}": lines})
    write(tmp_path / "in", {f"{name}/cat/{i}.jpg": b"" for name in ("clipart", "real") for i in range(2)})
    folder = without_duplicates(tmp_path / "in", ("clipart", "real"))
    assert listed(folder) == ["clipart/cat/0.jpg", "real/cat/0.jpg", "real/cat/1.jpg"]
    assert (tmp_path / "victim").exists()


@pytest.fixture
def terra(tmp_path):
    """Annotations in five files, each of which has a part."""
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


def test_images_go_where_their_annotations_say(terra):
    folder = terra_incognita(terra, PLACES)
    assert listed(folder) == ["location_100/dog/b.jpg", "location_38/cat/a.jpg", "location_38/dog/a.jpg"]
    assert (folder / "location_38/dog/a.jpg").read_text() == "a"


def test_an_annotated_image_is_missing(terra):
    (terra / "eccv_18_all_images_sm/b.jpg").unlink()
    with pytest.raises(RunError, match=r"image b\.jpg is annotated but missing"):
        terra_incognita(terra, PLACES)


@pytest.mark.parametrize("content", [None, "{", "[]", '{"images": []}'])
def test_a_list_of_annotations_makes_no_sense(terra, content):
    path = terra / "eccv_18_annotation_files/train_annotations.json"
    if content is None:
        path.unlink()
    else:
        path.write_text(content)
    with pytest.raises(RunError, match=r"the list train_annotations\.json cannot be read"):
        terra_incognita(terra, PLACES)


def test_wilds_gets_the_file_that_it_looks_for(tmp_path):
    write(tmp_path, {"top/metadata.csv": b"", "top/patches/1": b""})
    folder = wilds_release("RELEASE_v1.0.txt")(tmp_path, ("RELEASE_v1.0.txt", "metadata.csv", "patches"))
    assert listed(folder) == ["RELEASE_v1.0.txt", "metadata.csv", "patches/1"]

import random
from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from domainbed.download.file_list import checksum, file_list, keep_list, kept_list
from domainbed.download.verify import verify


@pytest.fixture
def there(tiny, tree, tmp_path):
    """A source whose files lie where they belong; nobody has seen them arrive."""
    for name, content in tree({"ink": {"cat": 2, "dog": 1}, "oil": {"cat": 1, "dog": 2}}, "tiny/").items():
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).write_bytes(content)
    return tiny()


def test_all_is_well(there, tmp_path):
    report = verify(there, tmp_path)
    assert report.problems == {}
    assert report.counts["ink"] == 3
    assert not report.as_arrived
    right = replace(there, checksum=report.checksum)
    assert verify(right, tmp_path).problems == {}


def test_missing_folders_and_images(there, tmp_path):
    for path in (tmp_path / "tiny/oil/dog").iterdir():
        path.unlink()
    problems = verify(there, tmp_path).problems
    assert problems["missing"] == ["oil/dog/"]
    assert problems["wrong number"] == ["oil has 1, not 3", "oil has 1 classes, not 2"]
    (tmp_path / "tiny/oil").rename(tmp_path / "tiny/oil paint")
    problems = verify(there, tmp_path).problems
    assert problems["missing"] == ["oil"]
    assert problems["surplus"] == ["oil paint/"]


def test_what_changed_since_it_arrived(there, tmp_path):
    keep_list(there, tmp_path, tmp_path / "tiny")
    assert verify(there, tmp_path).as_arrived
    folder = tmp_path / "tiny/ink"
    (folder / "cat/0.png").rename(folder / "cat/new.png")
    (folder / "cat/1.png").write_bytes((folder / "dog/0.png").read_bytes() + b"more")
    (folder / "cat/.hidden").touch()
    assert verify(there, tmp_path).problems == {
        "missing": ["ink/cat/0.png"],
        "surplus": ["ink/cat/new.png"],
        "changed": ["ink/cat/1.png"],
    }


def test_images_that_cannot_be_read_and_some_that_end_too_early(there, tmp_path, make_image):
    folder = tmp_path / "tiny/ink"
    (folder / "cat/0.png").write_bytes(b"no image")
    (folder / "dog/0.png").write_bytes(b"")
    (folder / "cat/1.png").write_bytes(make_image(5, "JPEG")[:-40])
    (tmp_path / "tiny/oil/cat/0.png").unlink()
    (tmp_path / "tiny/oil/cat/0.png").symlink_to("nowhere.png")
    report = verify(there, tmp_path)
    assert report.problems == {"unreadable": ["ink/cat/0.png", "ink/dog/0.png", "oil/cat/0.png"]}
    assert report.cut_short == ["ink/cat/1.png"]
    assert report.line() == "unreadable: ink/cat/0.png, ink/dog/0.png, oil/cat/0.png"
    assert verify(there, tmp_path, open_images=False).problems == {}


def test_a_wrong_checksum(there, tmp_path):
    problems = verify(replace(there, checksum="sha256:0"), tmp_path).problems
    assert problems == {"wrong checksum": ["it should be sha256:0"]}


def test_a_long_line_is_kept_short(there, tmp_path):
    keep_list(there, tmp_path, tmp_path / "tiny")
    for path in sorted((tmp_path / "tiny").rglob("*.png"))[:5]:
        path.unlink()
    assert verify(there, tmp_path).line().startswith("missing: ink/")
    assert " and 2 more; " in verify(there, tmp_path).line()


def test_the_kept_list_is_what_was_there(there, tmp_path):
    assert kept_list(there, tmp_path) is None
    (tmp_path / "tiny/ink/cat/odd name\t\udcff.png").touch()
    keep_list(there, tmp_path, tmp_path / "tiny")
    assert kept_list(there, tmp_path) == file_list(tmp_path / "tiny", there.holds)


@given(st.dictionaries(st.text("abc/ é", min_size=1), st.integers(0, 9), min_size=1), st.randoms())
def test_the_checksum_depends_on_names_and_sizes_not_on_their_order(files, rng):
    shuffled = random.Random(rng.random()).sample(list(files), len(files))
    assert checksum({name: files[name] for name in shuffled}) == checksum(files)
    name = shuffled[0]
    assert checksum(files | {name: files[name] + 1}) != checksum(files)
    assert checksum({each: size for each, size in files.items() if each != name}) != checksum(files)

"""Verification of a dataset's folder, and manifests."""

import random
from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from domainbed.download.manifest import checksum, list_files, read_manifest, write_manifest
from domainbed.download.verify import verify


@pytest.fixture
def source(tiny, tree, tmp_path):
    """A source whose dataset exists in the data directory, without a manifest."""
    for name, content in tree({"ink": {"cat": 2, "dog": 1}, "oil": {"cat": 1, "dog": 2}}, "tiny/").items():
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).write_bytes(content)
    return tiny()


def test_a_complete_dataset_has_no_problems(source, tmp_path):
    report = verify(source, tmp_path)
    assert report.problems == {}
    assert report.counts["ink"] == 3
    assert not report.compared_with_manifest
    with_checksum = replace(source, checksum=report.checksum)
    assert verify(with_checksum, tmp_path).problems == {}


def test_missing_folders_and_images(source, tmp_path):
    for path in (tmp_path / "tiny/oil/dog").iterdir():
        path.unlink()
    problems = verify(source, tmp_path).problems
    assert problems["missing"] == ["oil/dog/"]
    assert problems["wrong number"] == ["oil has 1, not 3", "oil has 1 classes, not 2"]
    (tmp_path / "tiny/oil").rename(tmp_path / "tiny/oil paint")
    problems = verify(source, tmp_path).problems
    assert problems["missing"] == ["oil"]
    assert problems["surplus"] == ["oil paint/"]


def test_changes_since_the_download(source, tmp_path):
    write_manifest(source, tmp_path, tmp_path / "tiny")
    assert verify(source, tmp_path).compared_with_manifest
    folder = tmp_path / "tiny/ink"
    (folder / "cat/0.png").rename(folder / "cat/new.png")
    (folder / "cat/1.png").write_bytes((folder / "dog/0.png").read_bytes() + b"more")
    (folder / "cat/.hidden").touch()
    assert verify(source, tmp_path).problems == {
        "missing": ["ink/cat/0.png"],
        "surplus": ["ink/cat/new.png"],
        "changed": ["ink/cat/1.png"],
    }


def test_unreadable_and_truncated_images(source, tmp_path, make_image):
    folder = tmp_path / "tiny/ink"
    (folder / "cat/0.png").write_bytes(b"no image")
    (folder / "dog/0.png").write_bytes(b"")
    (folder / "cat/1.png").write_bytes(make_image(5, "JPEG")[:-40])
    (tmp_path / "tiny/oil/cat/0.png").unlink()
    (tmp_path / "tiny/oil/cat/0.png").symlink_to("nowhere.png")
    report = verify(source, tmp_path)
    assert report.problems == {"unreadable": ["ink/cat/0.png", "ink/dog/0.png", "oil/cat/0.png"]}
    assert report.truncated == ["ink/cat/1.png"]
    assert report.line() == "unreadable: ink/cat/0.png, ink/dog/0.png, oil/cat/0.png"
    assert verify(source, tmp_path, open_images=False).problems == {}


def test_files_that_the_dataset_does_not_read_are_listed(source, tmp_path):
    assert verify(source, tmp_path).skipped == []
    (tmp_path / "tiny/ink/cat/.DS_Store").touch()
    (tmp_path / "tiny/oil/notes.txt").touch()
    report = verify(source, tmp_path)
    assert [each.line() for each in report.skipped] == [
        f"{tmp_path}/tiny/ink/cat/.DS_Store: hidden",
        f"{tmp_path}/tiny/oil/notes.txt: not images",
    ]
    assert report.problems == {}


def test_links_that_lead_in_a_circle_add_no_files(source, tmp_path):
    before = list_files(tmp_path / "tiny", source.holds)
    (tmp_path / "tiny/ink/cat/self").symlink_to(".")
    (tmp_path / "tiny/ink/cat/up").symlink_to(tmp_path)
    assert list_files(tmp_path / "tiny", source.holds) == before
    assert verify(source, tmp_path, open_images=False).problems == {}
    (tmp_path / "elsewhere").mkdir()
    (tmp_path / "elsewhere/0.png").touch()
    (tmp_path / "elsewhere/back").symlink_to(tmp_path / "tiny/ink")
    (tmp_path / "tiny/ink/cat/away").symlink_to(tmp_path / "elsewhere")
    after = list_files(tmp_path / "tiny", source.holds)
    assert after.keys() - before.keys() == {"ink/cat/away/0.png"}


def test_a_wrong_checksum(source, tmp_path):
    problems = verify(replace(source, checksum="sha256:0"), tmp_path).problems
    assert problems == {"wrong checksum": ["expected is sha256:0"]}


def test_the_line_names_at_most_three_instances(source, tmp_path):
    write_manifest(source, tmp_path, tmp_path / "tiny")
    for path in sorted((tmp_path / "tiny").rglob("*.png"))[:5]:
        path.unlink()
    assert verify(source, tmp_path).line().startswith("missing: ink/")
    assert " and 2 more; " in verify(source, tmp_path).line()


def test_the_manifest_is_the_list_of_files_when_it_was_written(source, tmp_path):
    assert read_manifest(source, tmp_path) is None
    (tmp_path / "tiny/ink/cat/odd name\t\udcff.png").touch()
    write_manifest(source, tmp_path, tmp_path / "tiny")
    assert read_manifest(source, tmp_path) == list_files(tmp_path / "tiny", source.holds)


@given(st.dictionaries(st.text("abc/ é", min_size=1), st.integers(0, 9), min_size=1), st.randoms())
def test_the_checksum_depends_on_names_and_sizes_but_not_on_their_order(files, rng):
    shuffled = random.Random(rng.random()).sample(list(files), len(files))
    assert checksum({name: files[name] for name in shuffled}) == checksum(files)
    name = shuffled[0]
    assert checksum(files | {name: files[name] + 1}) != checksum(files)
    assert checksum({each: size for each, size in files.items() if each != name}) != checksum(files)

"""Which files of a folder are read, which are skipped, and where that is said."""

import json
import os
import shutil
import sys

import pytest
from PIL import Image

import domainbed
from domainbed.datasets import get_dataset_class, image_formats
from domainbed.datasets.folder_layout import read_layout, skipped_files
from domainbed.datasets.reading_rules import UPSTREAM, USER_FOLDER, count_by_reason
from domainbed.errors import UsageError
from domainbed.training.config import TrainConfig
from domainbed.training.config_checks import check_config
from domainbed.training.run import build
from domainbed.training.run_description import describe
from domainbed.training.run_hparams import resolved_hparams

COUNTS = {"ink": {"cat": 4, "dog": 4}, "oil": {"cat": 4, "dog": 4}}
SETTINGS = {"hparams": '{"input_size": 16, "featurizer": "mlp", "mlp_width": 4}', "steps": 1}


@pytest.fixture
def folder(tmp_path, write_tree):
    write_tree(tmp_path / "paintings", COUNTS)
    return tmp_path / "paintings"


def read(folder, rules=USER_FOLDER):
    """Numbers of images of each class of the environment ink, and of skipped files by reason."""
    layout = read_layout(folder, rules=rules)
    counts = {name: len(paths) for name, paths in layout.images["ink"].items()}
    return counts, count_by_reason(layout.skipped)


@pytest.mark.parametrize("suffix", [".jfif", ".JFIF", ".gif", ".avif", ".jpe", ".jp2", ".jif", ".pbm"])
def test_images_of_a_users_folder_may_have_any_suffix_of_their_format(folder, pictures, suffix):
    pictures[0].save(folder / "ink/cat" / f"new{suffix}", {".jif": "JPEG"}.get(suffix.lower()))
    assert read(folder) == ({"cat": 5, "dog": 4}, {})
    assert read(folder, UPSTREAM) == ({"cat": 4, "dog": 4}, {"other_file": 1})


def test_heic_is_read_where_its_package_is_installed_and_otherwise_counted(folder, pictures, monkeypatch):
    pytest.importorskip("pillow_heif").register_heif_opener()
    pictures[0].save(folder / "ink/cat/new.heic")
    assert read(folder) == ({"cat": 5, "dog": 4}, {})
    monkeypatch.setattr(image_formats, "readable_formats", lambda: ("JPEG", "PNG"))
    assert read(folder) == ({"cat": 4, "dog": 4}, {"no_decoder": 1})


def test_files_without_a_suffix_are_recognised_by_their_content(folder, pictures):
    pictures[0].save(folder / "ink/cat/photo", "JPEG")
    (folder / "ink/cat/README").write_text("Photos of cats")
    assert read(folder) == ({"cat": 5, "dog": 4}, {"other_file": 1})


def test_a_link_to_its_own_folder_multiplies_nothing(folder):
    (folder / "ink/cat/again").symlink_to(".")
    (folder / "ink/dog/again").symlink_to(folder)
    assert read(folder) == ({"cat": 4, "dog": 4}, {"folder_again": 2})
    assert read(folder, UPSTREAM) == ({"cat": 4, "dog": 4}, {"folder_again": 2})


def test_folders_that_link_to_each_other_end(folder, tmp_path, pictures):
    for one, other in ("ab", "ba"):
        (tmp_path / one).mkdir()
        (tmp_path / one / other).symlink_to(tmp_path / other)
    pictures[0].save(tmp_path / "b/0.png")
    (folder / "ink/cat/a").symlink_to(tmp_path / "a")
    assert read(folder) == ({"cat": 5, "dog": 4}, {"folder_again": 1})
    assert read(folder, UPSTREAM) == ({"cat": 5, "dog": 4}, {"folder_again": 1})


def test_a_file_in_two_classes_is_read_where_it_lies(folder):
    (folder / "ink/cat/link.png").symlink_to(folder / "ink/dog/0.png")
    assert read(folder) == ({"cat": 4, "dog": 4}, {"same_file": 1})
    (folder / "ink/cat/0.png").unlink()
    (folder / "ink/cat/0.png").hardlink_to(folder / "ink/dog/0.png")
    assert read(folder) == ({"cat": 4, "dog": 3}, {"same_file": 2})
    assert read(folder, UPSTREAM) == ({"cat": 5, "dog": 4}, {})


def test_a_class_that_links_to_another_one_has_no_images_of_its_own(folder):
    shutil.rmtree(folder / "ink/cat")
    (folder / "ink/cat").symlink_to("dog")
    reason = (
        r"class cat of environment ink has no images .*its files: 1 links to folders that are read already"
    )
    with pytest.raises(UsageError, match=reason):
        read(folder)


def test_an_environment_of_links_to_images_elsewhere_is_read(folder, tmp_path):
    elsewhere = shutil.move(folder / "ink", tmp_path / "elsewhere")
    for name in ("cat", "dog"):
        (folder / "ink" / name).mkdir(parents=True)
        for image in (elsewhere / name).iterdir():
            (folder / "ink" / name / image.name).symlink_to(image)
    assert read(folder) == ({"cat": 4, "dog": 4}, {})


def test_thumbnails_and_other_leftovers_of_tools_are_skipped(folder):
    for place in ("@eaDir", "__MACOSX", "ink/@eaDir", "ink/cat/@eaDir", "ink/cat/.ipynb_checkpoints"):
        shutil.copytree(folder / "oil/cat", folder / place)
    assert read(folder) == ({"cat": 4, "dog": 4}, {"hidden": 4, "tool_folder": 16})
    assert get_dataset_class(str(folder)).ENVIRONMENTS == ("ink", "oil")


def test_a_pipe_does_not_stop_a_run(folder):
    os.mkfifo(folder / "ink/cat/pipe.png")
    os.mkfifo(folder / "ink/pipe.png")
    assert read(folder) == ({"cat": 4, "dog": 4}, {"special": 2})


def test_a_link_to_itself_is_no_image(folder):
    (folder / "ink/cat/self").symlink_to("self")
    (folder / "self").symlink_to("self")
    assert read(folder)[0] == {"cat": 4, "dog": 4}


def test_a_run_says_at_its_start_what_it_does_not_read_and_records_it(folder, tmp_path):
    (folder / "ink/cat/.DS_Store").touch()
    (folder / "oil/list.txt").touch()
    (folder / "oil/@eaDir").mkdir()
    (folder / "oil/@eaDir/1.jpg").touch()
    (folder / "oil/@eaDir/2.jpg").touch()
    line = "\tfiles that are not read: 1 hidden, 2 in folders that tools leave, 1 not images"
    said = list(describe(build(TrainConfig(dataset=str(folder), **SETTINGS))))
    assert said[1] == f"{line}; --check_images lists them"
    run = build(TrainConfig(dataset=str(folder), check_images=True, **SETTINGS))
    assert list(describe(run))[1:5] == [
        line,
        f"\t\t{folder}/oil/@eaDir (2 files): in folders that tools leave",
        f"\t\t{folder}/oil/list.txt: not images",
        f"\t\t{folder}/ink/cat/.DS_Store: hidden",
    ]
    records = domainbed.train(dataset=str(folder), output_dir=tmp_path / "run", **SETTINGS)
    expected = {"hidden": 1, "tool_folder": 2, "other_file": 1}
    assert records["data.skipped"].tolist() == [expected]
    assert json.loads((tmp_path / "run/run.json").read_text())["data"]["skipped"] == expected


def test_a_run_says_that_it_reads_every_file(folder):
    assert list(describe(build(TrainConfig(dataset=str(folder), **SETTINGS))))[1] == (
        "\tfiles that are not read: none"
    )
    assert "not read" not in "".join(describe(build(TrainConfig(dataset="Debug28", steps=1))))


def test_a_run_scans_a_users_folder_once(folder):
    config = TrainConfig(dataset=str(folder), **SETTINGS)
    process = os.fork()
    if process == 0:  # an audit hook cannot be removed
        scanned = []
        sys.addaudithook(lambda event, args: scanned.append(str(args[0])) if event == "os.scandir" else None)
        check_config(config)
        config.dataset_class()(None, [0], resolved_hparams(config))
        os._exit([scanned.count(str(folder / place)) for place in ("ink/cat", "oil", "oil/dog")] != [1, 1, 1])
    assert os.waitpid(process, 0)[1] == 0


def test_what_was_scanned_is_used_once(folder, pictures):
    kind = get_dataset_class(str(folder))
    hparams = {"data_augmentation": False}
    assert kind.missing(None) is None
    for more in (0, 1):
        assert [len(each) for each in kind(None, [0], hparams).datasets] == [8 + more, 8]
        pictures[5].save(folder / "ink/cat/new.png")


def test_skipped_files_do_not_change_the_checksum(folder):
    def checksum():
        run = build(TrainConfig(dataset=str(folder), **SETTINGS))
        return run.dataset.summary["checksum"]

    before = checksum()
    (folder / "ink/cat/notes.txt").touch()
    assert checksum() == before
    Image.new("RGB", (9, 9)).save(folder / "ink/cat/new.gif")
    assert checksum() != before


def test_upstreams_datasets_are_read_by_upstreams_rules(tmp_path, write_tree, pictures):
    names = ("art_painting", "cartoon", "photo", "sketch")
    write_tree(tmp_path / "PACS", {name: {"dog": 2} for name in names})
    pictures[0].save(tmp_path / "PACS/photo/dog/new.gif")
    (tmp_path / "PACS/photo/dog/link.png").symlink_to("0.png")
    (tmp_path / "PACS/photo/dog/@eaDir").mkdir()
    pictures[0].save(tmp_path / "PACS/photo/dog/@eaDir/thumbnail.png")
    dataset = get_dataset_class("PACS")(str(tmp_path), [0], {"data_augmentation": True})
    assert dataset.counts()["P"] == {"dog": 4}
    assert count_by_reason(dataset.skipped) == {"other_file": 1}
    assert [each.path for each in skipped_files(tmp_path / "PACS", names)] == [
        str(tmp_path / "PACS/photo/dog/new.gif")
    ]

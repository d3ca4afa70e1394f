import json
import zipfile

import numpy as np
import pytest

from domainbed.errors import UsageError
from domainbed.predictions import NAME, read_predictions
from domainbed.predictions.file import packed_paths, step_file, write_arrays


def test_the_documented_entries_are_read_by_numpy_alone(run_dir):
    with np.load(run_dir / NAME) as file:
        about = json.loads(file["about"].item())
        assert about["dataset"] == "EmojiStyles"
        assert about["parts"]["env1_in"] == 1
        size = len(file["env1_in/labels"])
        assert file["env1_in/labels"].dtype == np.uint8
        assert file["env1_in/positions"].shape == (size,)
        assert file["4/env1_in/predicted"].shape == (size,)
        assert file["4/env1_in/log_probabilities"].shape == (size, 7)
        assert file["4/env1_in/log_probabilities"].dtype == np.float16
        assert "env1_in/images" not in file.files
    assert not list(run_dir.glob("predictions_step*"))


def test_equal_arrays_make_equal_files(tmp_path):
    for name in "ab":
        write_arrays(tmp_path / name, [("x/y", np.arange(5)), ("z", np.array("text"))])
    assert (tmp_path / "a").read_bytes() == (tmp_path / "b").read_bytes()


def test_paths_that_are_no_text_survive():
    paths = ["a/b.png", "c/\udcff.png", "d/é.png"]
    assert [bytes(each) for each in packed_paths(paths)] == [b"a/b.png", b"c/\xff.png", b"d/\xc3\xa9.png"]


def test_a_run_without_predictions_is_told_how_to_save_them(tmp_path):
    with pytest.raises(UsageError, match="train the run with --save_predictions last, selected or all"):
        read_predictions(tmp_path)


def test_a_run_that_is_not_done_is_told_so(tmp_path):
    write_arrays(step_file(tmp_path, 10), [])
    with pytest.raises(
        UsageError, match="the run writes it when it is done; run its command again to resume"
    ):
        read_predictions(tmp_path)


def test_a_damaged_file_or_one_of_another_kind_is_named(run_dir, tmp_path):
    content = bytearray((run_dir / NAME).read_bytes())
    (tmp_path / "cut.npz").write_bytes(content[:-100])
    with zipfile.ZipFile(run_dir / NAME) as archive:
        start = archive.getinfo("4/env1_in/predicted.npy").header_offset + 100
    content[start] ^= 0xFF
    (tmp_path / "changed.npz").write_bytes(content)
    (tmp_path / "text.npz").write_text("no predictions")
    np.save(tmp_path / "array.npy", np.zeros(3))
    np.savez(tmp_path / "other.npz", x=np.zeros(3))
    for name in ("cut.npz", "changed.npz", "text.npz", "array.npy", "other.npz"):
        with pytest.raises(UsageError, match=rf"{name} is (damaged|no file of predictions)"):
            read_predictions(tmp_path / name).part("env1_in")


def test_a_file_of_a_newer_format_names_both(run_dir, tmp_path):
    with np.load(run_dir / NAME) as file:
        about = json.loads(file["about"].item()) | {"format": 7}
    write_arrays(tmp_path / NAME, [("about", np.array(json.dumps(about)))])
    with pytest.raises(UsageError, match="has format 7, and this version reads format 1"):
        read_predictions(tmp_path)

"""Sweeps that hold out several environments at once: which runs they have, and what sweep.json keeps."""

import json

import pytest

from domainbed.datasets import REGISTRY
from domainbed.datasets.debug import Debug28
from domainbed.errors import RunError, UsageError
from domainbed.scripts import sweep
from domainbed.sweep.few_sources import few_sources_warnings
from domainbed.sweep.flags import parse
from domainbed.sweep.manifest import add_to_manifest, read_manifest
from domainbed.sweep.planned_jobs import make_jobs
from domainbed.sweep.target_sets import parse_target_sets

NAMES = ("art", "cartoon", "photo", "sketch")
FLAGS = (
    *("--datasets", "EmojiStyles", "--algorithms", "ERM", "--n_trials", "1", "--n_hparams", "1"),
    *("--steps", "2", "--skip_confirmation", "--command_launcher", "dummy", "--quiet"),
)


def jobs_of(*flags):
    return make_jobs(parse(["launch", *FLAGS, "--output_dir", "x", *flags]))


def launch(directory, *flags):
    return sweep.main(["launch", *FLAGS, "--output_dir", str(directory), *flags])


@pytest.mark.parametrize(
    ("texts", "expected"),
    [
        (["0 1", "2 3"], [[0, 1], [2, 3]]),
        (["3,1", "0, 2"], [[1, 3], [0, 2]]),
        (["1 0", "0 1", "2"], [[0, 1], [2]]),
        (["photo art", "sketch,1"], [[0, 2], [1, 3]]),
        (["Sketch", "cartoon photo, 0"], [[3], [0, 1, 2]]),
        (["single_source"], [[1, 2, 3], [0, 2, 3], [0, 1, 3], [0, 1, 2]]),
    ],
)
def test_sets_of_targets_by_index_or_name_are_in_ascending_order_each_set_once(texts, expected):
    assert parse_target_sets(texts, NAMES, "PACS") == expected


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("0 x", "--target_sets x: PACS has no such environment"),
        ("", "--target_sets takes sets of indices or names, such as"),
        ("-1", "--target_sets -1 is out of range"),
        ("0 4", "--target_sets 4 is out of range: PACS has environments 0 .art., 1"),
        ("1 1", "--target_sets 1 1 names an environment twice"),
        ("0 1 2 3", "--target_sets holds out all environments of PACS"),
    ],
)
def test_a_set_that_a_dataset_cannot_have_is_refused(text, message):
    with pytest.raises(UsageError, match=message):
        parse_target_sets([text], NAMES, "PACS")


def test_names_with_spaces_are_separated_by_commas():
    names = ("day", "night shots", "by night", "0 1")
    assert parse_target_sets(["night shots", "by night,day"], names, "mine") == [[1], [0, 2]]
    assert parse_target_sets(["Night Shots, 3 day"], names, "mine") == [[0, 1, 3]]


def test_a_sweep_has_a_run_for_each_set_in_the_order_given():
    assert [job.train_args["test_envs"] for job in jobs_of("--target_sets", "2 3", "0 1")] == [[2, 3], [0, 1]]


def test_runs_of_methods_that_need_more_sources_are_counted_before_they_fail():
    flags = ("--algorithms", "ERM", "MLDG", "--target_sets", "0 1", "single_source")
    (line,) = few_sources_warnings(jobs_of(*flags))
    assert line.startswith(
        "MLDG needs at least 2 source environments, and 4 of its runs on EmojiStyles, which train on 1, will"
    )
    assert list(few_sources_warnings(jobs_of("--algorithms", "MLDG"))) == []


def test_a_set_of_two_is_the_job_that_upstreams_pair_is():
    pairs = {tuple(job.train_args["test_envs"]): job for job in jobs_of()}
    (job,) = jobs_of("--target_sets", "1 0")
    assert job.name == pairs[0, 1].name
    assert job.train_args == pairs[0, 1].train_args


def test_test_envs_chooses_among_the_sets():
    held_out = [
        job.train_args["test_envs"] for job in jobs_of("--target_sets", "0 1", "2 3", "--test_envs", "3")
    ]
    assert held_out == [[2, 3]]


def test_names_give_the_jobs_and_the_sweep_that_indices_give(tmp_path):
    by_name = ("--target_sets", "line flat", "Gradient,rendered", "--test_envs", "Line", "3")
    by_index = ("--target_sets", "0 2", "1 3", "--test_envs", "2", "3")
    assert [job.name for job in jobs_of(*by_name)] == [job.name for job in jobs_of(*by_index)]
    sweeps = []
    for name, flags in (("names", by_name), ("indices", by_index)):
        launch(tmp_path / name, *flags)
        found = read_manifest(tmp_path / name)
        sweeps.append((found.jobs, found.target_sets))
        assert {path.name for path in (tmp_path / name).iterdir() if path.is_dir()} == {*found.jobs}
    assert sweeps[0] == sweeps[1]


def test_a_name_must_exist_in_every_dataset_and_has_the_index_of_each():
    two = ("--datasets", "ColoredMNIST", "ReverseNames", "--data_dir", "data", "--single_test_envs")

    with pytest.MonkeyPatch.context() as patch:
        patch.setitem(
            REGISTRY, "ReverseNames", type("ReverseNames", (Debug28,), {"ENVIRONMENTS": ("-90%", "x")})
        )
        held_out = [job.train_args["test_envs"] for job in jobs_of(*two, "--test_envs=-90%")]
        assert held_out == [[2], [0]]
        with pytest.raises(UsageError, match="--test_envs X: ColoredMNIST has no such environment"):
            jobs_of(*two, "--test_envs", "X")
        with pytest.raises(UsageError, match="--target_sets X: ColoredMNIST has no such environment"):
            jobs_of(*two, "--target_sets", "X")


def test_a_sweep_file_may_name_targets(tmp_path):
    file = tmp_path / "sweep.toml"
    file.write_text('test_envs = [0, "line"]\nsingle_test_envs = true\n')
    by_index = jobs_of("--test_envs", "0", "2", "--single_test_envs")
    assert [job.name for job in jobs_of("--config", str(file))] == [job.name for job in by_index]
    file.write_text("test_envs = [0.5]\n")
    with pytest.raises(
        UsageError, match=r"test_envs takes a value of type list\[int or name\], not \[0\.5\]"
    ):
        jobs_of("--config", str(file))


def test_a_sweep_file_names_sets_as_the_command_line_does(tmp_path):
    file = tmp_path / "sweep.toml"
    file.write_text('target_sets = ["0 1", "2 3"]\n')
    assert [job.name for job in jobs_of("--config", str(file))] == [
        job.name for job in jobs_of("--target_sets", "0 1", "2 3")
    ]


def test_sweep_json_keeps_the_sets_of_all_launches(tmp_path, capsys):
    launch(tmp_path, "--target_sets", "0 1")
    launch(tmp_path, "--target_sets", "2 3", "0 1")
    assert read_manifest(tmp_path).target_sets == {"EmojiStyles": ((0, 1), (2, 3))}
    assert len(read_manifest(tmp_path).jobs) == 2
    assert capsys.readouterr().out.count("Dummy launcher: ") == 2


def test_sweep_json_of_other_sweeps_has_no_word_of_sets(tmp_path, capsys):
    launch(tmp_path, "--single_test_envs")
    assert "target_sets" not in json.loads((tmp_path / "sweep.json").read_text())
    assert capsys.readouterr().out.count("Dummy launcher: ") == 4


def test_a_directory_has_sets_of_targets_in_all_launches_or_in_none(tmp_path, capsys):
    launch(tmp_path / "sets", "--target_sets", "0 1")
    launch(tmp_path / "pairs")
    capsys.readouterr()
    with pytest.raises(UsageError, match="sets has runs on EmojiStyles with sets of targets, this launch"):
        launch(tmp_path / "sets", "--single_test_envs")
    with pytest.raises(
        UsageError, match="pairs has runs on EmojiStyles with one target or a pair, this launch"
    ):
        launch(tmp_path / "pairs", "--target_sets", "0 1")


def test_sets_and_single_targets_exclude_each_other(tmp_path):
    with pytest.raises(UsageError, match="--target_sets and --single_test_envs choose other targets"):
        launch(tmp_path, "--target_sets", "0 1", "--single_test_envs")


@pytest.mark.parametrize("damage", ["[[0, 1]]", '{"PACS": 1}', '{"PACS": [["a"]]}', "null", '{"PACS": [0]}'])
def test_damaged_sets_in_sweep_json_are_named(tmp_path, damage):
    add_to_manifest(tmp_path, {"a": {}}, (), target_sets={"PACS": [[0, 1]]})
    file = tmp_path / "sweep.json"
    content = json.loads(file.read_text()) | {"target_sets": json.loads(damage)}
    file.write_text(json.dumps(content))
    with pytest.raises(RunError, match=r"sweep.json is damaged"):
        read_manifest(tmp_path)

import json
import re
import shlex

import pytest

from domainbed.scripts import sweep as sweep_script
from domainbed.sweep.flags import build_parser

SMALL = '{"batch_size": 8, "featurizer": "small_cnn"}'
DEBUG = (
    *("--datasets", "Debug28", "--algorithms=ERM", "--n_hparams=1", "--n_trials=1", "--steps", 2),
    *("--data_dir", "", "--output_dir", "sweep", "--hparams", SMALL, "--skip_model_save"),
)


@pytest.fixture
def run(forked_script):
    """`run(command, *flags)`: the sweep script on Debug28, which answers "y" by default."""
    return lambda command, *flags, input="y\n": forked_script("sweep", command, *DEBUG, *flags, input=input)


def test_dummy_prints_six_commands_once_and_again_after_delete_incomplete(run, tmp_path):
    dummy = ("--command_launcher=dummy", "--skip_confirmation")
    printed = [run("launch", *dummy).stdout.count("Dummy launcher:") for _ in range(2)]
    assert printed == [6, 0]
    assert len([path for path in (tmp_path / "sweep").iterdir() if path.is_dir()]) == 6
    deleted = run("delete_incomplete", *dummy)
    assert "6 jobs: 0 done, 6 incomplete, 0 not launched.\nAbout to delete 6 jobs." in deleted.stdout
    assert run("launch", *dummy).stdout.count("Dummy launcher: python -m domainbed.scripts.train ") == 6


def test_a_launch_runs_the_listed_jobs_and_a_second_launch_none(run, tmp_path):
    done = run("launch")
    assert done.returncode == 0, done.stderr
    lines = done.stdout.splitlines()
    assert [line.split() for line in lines[:2]] == [
        ["Dataset", "Algorithms", "Targets", "Trials", "Hyper-parameters", "Runs"],
        ["Debug28", "1", "6", "1", "1", "6"],
    ]
    assert lines[2] == "Algorithms: ERM."
    assert lines[3:5] == ["6 jobs: 0 done, 0 incomplete, 6 not launched.", "About to launch 6 jobs."]
    assert re.fullmatch(r"The directories of 6 runs take up \d+(\.\d+)? kB\.", lines.pop(-3))
    assert lines[5:] == [
        "Are you sure? (y/n) Launching...",
        "Making job directories:",
        "Launched 6 jobs!",
        "The sweep is in sweep. To print its tables:",
        "    python -m domainbed.scripts.collect_results --input_dir sweep",
    ]
    assert "6/6" in done.stderr
    assert "failed=0" in done.stderr
    again = run("launch")
    assert again.returncode == 0
    assert "6 jobs: 6 done, 0 incomplete, 0 not launched.\nAbout to launch 0 jobs." in again.stdout
    assert "Are you sure" not in again.stdout
    manifest = json.loads((tmp_path / "sweep" / "sweep.json").read_text(encoding="utf-8"))
    folders = {path.name for path in (tmp_path / "sweep").iterdir() if path.is_dir()}
    assert set(manifest["jobs"]) == folders
    assert all("output_dir" not in args for args in manifest["jobs"].values())
    (command,) = manifest["commands"]
    assert command.startswith("python -m domainbed.scripts.sweep launch ")
    # Nothing is incomplete, so nothing is deleted.
    assert "About to delete 0 jobs." in run("delete_incomplete").stdout


def test_a_sweep_over_some_targets(run):
    shown = run("launch", "--single_test_envs", "--test_envs", 2, 0, "--verbose", input="n\n").stdout
    assert "2 jobs: " in shown
    assert "[1]" not in shown


def test_a_dry_run_shows_each_run_if_asked_and_launches_nothing(run, tmp_path):
    done = run("launch", "--dry_run", "--verbose")
    assert done.returncode == 0
    assert [line.partition(":")[0] for line in done.stdout.splitlines()[:6]] == ["Not launched"] * 6
    assert done.stdout.endswith("Nothing is launched (--dry_run).\n")
    assert not list(tmp_path.iterdir())


def test_a_launch_of_some_length_is_estimated_before_it_asks(run):
    long = run("launch", "--steps", 300, "--workers", 2, input="n\n").stdout.splitlines()
    assert re.search(
        r"\nEstimated time: .* \(.* to .*\) for 6 runs, 2 at a time, from a few steps of one run\. "
        r"Memory: \d+ MB a run\. Disk: [\d.]+ MB; .*B are free\. About to",
        "\n" + " ".join(long[4:]),
    )
    assert max(map(len, long)) <= 80
    quiet = run("launch", "--steps", 300, "--workers", 2, "--quiet", input="n\n").stdout.splitlines()
    assert [line.partition(":")[0] for line in quiet[:-1]] == ["Estimated time", "About to launch 6 jobs."]
    elsewhere = run("launch", "--steps", 300, "--command_launcher", "dummy", input="n\n").stdout
    assert "Estimated" not in elsewhere


def test_the_estimate_uses_finished_runs_where_there_are_some(run):
    assert run("launch", "--steps", 10, "--single_test_envs").returncode == 0
    shown = run("launch", "--steps", 10, "--single_test_envs", "--n_trials", 9, input="n\n").stdout
    shown = " ".join(shown.split())
    assert re.search(r"Estimated time: .* for 24 runs, .* at a time, from finished runs of one run\.", shown)


def test_retry_launches_what_failed_and_only_that(run, forked_script, tmp_path):
    assert run("launch").returncode == 0
    failed, *_ = (path for path in (tmp_path / "sweep").iterdir() if path.is_dir())
    assert forked_script("sweep", "retry", "--output_dir", "sweep").stdout == "No run has failed in sweep.\n"
    (failed / "done").unlink()
    (failed / "failed.json").write_text('{"error": "out of memory", "exit_status": 1}')
    dry = forked_script("sweep", "retry", "--output_dir", "sweep", "--dry_run").stdout
    assert dry.endswith("Algorithms: ERM.\nNothing is launched (--dry_run).\n")
    done = forked_script("sweep", "retry", "--output_dir", "sweep", "--skip_confirmation")
    assert done.returncode == 0, done.stderr
    assert "About to launch 1 jobs." in done.stdout
    assert (failed / "done").exists()


def test_without_flags_of_a_grid_delete_incomplete_reads_the_sweep_itself(run, forked_script, tmp_path):
    run("launch", "--command_launcher=dummy", "--skip_confirmation")
    shown = forked_script("sweep", "delete_incomplete", "--output_dir", "sweep", input="y\n").stdout
    assert "About to delete 6 jobs." in shown
    assert "jobs: " not in shown
    assert not [path for path in (tmp_path / "sweep").iterdir() if path.is_dir()]


def test_delete_incomplete_takes_a_sweep_file_and_a_dry_run(run, forked_script, tmp_path):
    (tmp_path / "mine.toml").write_text(
        'datasets = ["Debug28"]\nalgorithms = ["ERM"]\nn_trials = 1\nn_hparams = 1\noutput_dir = "sweep"\n'
    )
    file = ("--config", "mine.toml")
    forked_script("sweep", "launch", *file, "--command_launcher=dummy", "--skip_confirmation")
    dry = forked_script("sweep", "delete_incomplete", *file, "--dry_run").stdout
    assert dry.endswith("6 jobs are incomplete. Nothing is deleted (--dry_run).\n")
    assert len([path for path in (tmp_path / "sweep").iterdir() if path.is_dir()]) == 6
    assert "Deleted 6 jobs!" in forked_script("sweep", "delete_incomplete", *file, input="y\n").stdout


def test_flags_without_effect_are_named_or_refused(run, forked_script, one_line_error):
    run("launch", "--command_launcher=dummy", "--skip_confirmation")
    other = ("--output_dir", "sweep", "--algorithms", "ERM", "--steps", 3)
    shown = forked_script("sweep", "status", *other)
    assert shown.stderr == "note: sweep status ignores --algorithms, --steps.\n"
    assert shown.stdout == "6 runs: 6 queued.\n"
    message = one_line_error(forked_script("sweep", "retry", *other), 2)
    assert "sweep retry takes no --algorithms: it launches all failed runs" in message


@pytest.mark.parametrize("answer", ["n\n", "\n", "maybe\n", "  no\n", "oy\n"])
def test_any_answer_but_yes_launches_nothing(run, tmp_path, answer):
    done = run("launch", "--quiet", input=answer)
    assert done.returncode == 0
    assert done.stdout.endswith("Are you sure? (y/n) Nevermind!\n")
    assert not (tmp_path / "sweep").exists()


@pytest.mark.parametrize("answer", ["y", "Y\n", "  yes\n", "yup\n"])
def test_an_answer_that_starts_with_y_is_a_yes(run, answer):
    done = run("launch", "--command_launcher", "dummy", input=answer)
    assert "Launched 6 jobs!" in done.stdout


def test_without_an_answer_nothing_is_launched(run, tmp_path, one_line_error):
    message = one_line_error(run("launch", input=""), 2)
    assert "use --skip_confirmation to proceed without asking" in message
    assert not (tmp_path / "sweep").exists()


def test_the_chosen_datasets_and_directory_are_printed(forked_script, tmp_path):
    done = forked_script("sweep", "launch", "--algorithms", "AgrSum", input="n\n")
    assert done.returncode == 0
    assert "No --data_dir given; using the datasets that need none: EmojiStyles." in done.stdout
    assert "No --output_dir given; writing to sweep_output/EmojiStyles-AgrSum." in done.stdout
    # 3 trials x 10 sets of targets x 20 seeds of hyper-parameters
    assert "600 jobs: 0 done, 0 incomplete, 600 not launched." in done.stdout
    assert done.stdout.endswith("Are you sure? (y/n) Nevermind!\n")
    assert not list(tmp_path.iterdir())


def test_paths_may_hold_spaces_quotes_and_shell_syntax(forked_script, tmp_path):
    name = 'my sweep\'s "$(touch owned)"; touch owned'
    flags = [*DEBUG, "--single_test_envs", "--skip_confirmation", "--data_dir", "$(touch owned)"]
    done = forked_script("sweep", "launch", *flags, "--output_dir", name)
    assert done.returncode == 0, done.stderr
    assert len(list((tmp_path / name).glob("*/done"))) == 3
    assert [path.name for path in tmp_path.iterdir()] == [name]
    shown = done.stdout.splitlines()[-1]
    assert shlex.split(shown)[-1] == name
    record = json.loads(next((tmp_path / name).glob("*/results.jsonl")).read_text().splitlines()[0])
    assert record["args"]["data_dir"] == "$(touch owned)"


@pytest.mark.parametrize(
    ("flags", "message"),
    [
        (["--algorithms", "AgrSun"], "Algorithm not found: AgrSun. Did you mean AgrSum"),
        (["--algorithms", "ERM", "Tensor"], "Algorithm not found: Tensor."),
        (["--datasets", "Debug82"], "Dataset not found: Debug82. Did you mean Debug28"),
        (["--datasets", "Debug28", "PACS", "--data_dir", "nowhere"], "data directory nowhere does not exist"),
        (["--command_launcher", "locl"], "Command launcher not found: locl. Did you mean local"),
        (["--command_launcher", "dummy", "--workers", "2"], "launcher dummy takes no --workers"),
        (["--task", "generalization"], "--task must be one of domain_generalization, domain_adaptation"),
        (["--task", "domain_adaptation"], "give --uda_holdout_fraction a share"),
        (["--hparams", "{lr: 1}"], "--hparams is not valid JSON"),
        (["--hparams", "[]"], "--hparams takes a JSON object"),
        (["--hparams", '{"lrr": 1}'], "unknown hyper-parameter 'lrr'. Did you mean "),
        (["--hparams", '{"AgrSun": {"lr": 1}}'], "Algorithm not found: AgrSun"),
        (["--hparams", '{"ERM": {"lr": "fast"}}'], 'lr takes a value of type float, not "fast" (str)'),
        (["--selection", "iidd"], "Selection method not found: iidd"),
        (["--splits", "nosuch"], "Split scheme not found: nosuch"),
        (["--steps", "0"], "--steps must be at least 1, not 0"),
        (["--test_envs", "0", "3"], "--test_envs 3 is out of range: Debug28 has environments 0 to 2"),
        (["--n_trials", "0"], "--n_trials must be at least 1, not 0"),
        (["--n_hparams", "0"], "--n_hparams must be at least 1, not 0"),
        (["--n_hparams_from", "1"], "--n_hparams must be more than --n_hparams_from (1)"),
        (["--n_hparams_from=-1"], "--n_hparams_from must be at least 0, not -1"),
        (["--workers", "0"], "--workers must be at least 1, not 0"),
        (["--holdout_fraction", "1"], "--holdout_fraction must be less than 1, not 1.0"),
        (["--preset", "fast"], "--preset names a preset of a sweep file: give --config too"),
        (["--config", "none.toml"], "cannot read sweep file none.toml: No such file or directory"),
    ],
)
def test_invalid_flags_are_rejected_before_anything_is_written(run, tmp_path, one_line_error, flags, message):
    assert message in one_line_error(run("launch", *flags), 2)
    assert not list(tmp_path.iterdir())


def test_multi_gpu_without_a_gpu_is_rejected_before_anything_is_written(
    run, tmp_path, one_line_error, monkeypatch
):
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "")
    assert "needs a GPU" in one_line_error(run("launch", "--command_launcher", "multi_gpu"), 2)
    assert not list(tmp_path.iterdir())


def test_argparse_rejects_unknown_flags_and_choices(run, tmp_path):
    for flags in (["--n_trails", "3"], ["--seed_scheme", "pairs"], ["--n_trials", "many"]):
        done = run("launch", *flags)
        assert done.returncode == 2
        assert "Traceback" not in done.stderr
    assert not list(tmp_path.iterdir())


def test_an_output_directory_that_cannot_be_written(run, tmp_path, one_line_error):
    (tmp_path / "file").write_text("", encoding="utf-8")
    for place in ("file", "file/sweep", "/proc/sweep"):
        message = one_line_error(run("launch", "--skip_confirmation", "--output_dir", place), 2)
        assert f"cannot write to --output_dir {place}: " in message


def test_a_damaged_manifest_is_named_and_kept(run, tmp_path, one_line_error):
    (tmp_path / "sweep").mkdir()
    (tmp_path / "sweep" / "sweep.json").write_text("{", encoding="utf-8")
    assert "sweep/sweep.json is damaged" in one_line_error(run("launch", "--skip_confirmation"), 1)
    assert (tmp_path / "sweep" / "sweep.json").read_text(encoding="utf-8") == "{"


def test_a_second_launch_restarts_only_failed_runs(run, tmp_path):
    # Only GroupDRO has the learning rate that makes training diverge.
    hparams = '{"batch_size": 8, "GroupDRO": {"lr": 1e30}}'
    flags = ("--algorithms", "ERM", "GroupDRO", "--hparams", hparams, "--steps", 3, "--single_test_envs")
    flags += ("--skip_confirmation", "--checkpoint_freq", 1)
    first = run("launch", *flags)
    assert first.returncode == 1
    failures = [line for line in first.stderr.splitlines() if line.startswith("FAILED Incomplete: sweep/")]
    assert len(failures) == 3
    assert all("'GroupDRO'" in line and line.endswith("try a smaller lr.") for line in failures)
    retry = "To launch them again:\n    python -m domainbed.scripts.sweep retry --output_dir sweep\n"
    assert f"3 of 6 runs failed; see failed.json in their directories. {retry}" in first.stderr
    assert "Traceback" not in first.stderr
    second = run("launch", *flags)
    assert second.returncode == 1
    assert "Restarting 3 incomplete jobs: 3 failed, 0 were stopped.\nAbout to launch 3 jobs." in second.stdout
    assert len(list((tmp_path / "sweep").glob("*/attempt-1/results.jsonl"))) == 3
    assert len(list((tmp_path / "sweep").glob("*/done"))) == 3


def test_repeated_names_count_once(run):
    done = run("launch", "--datasets", "Debug28", "Debug28", "--algorithms", "ERM", "ERM", input="n\n")
    assert "6 jobs: " in done.stdout


def test_upstreams_flags_and_their_abbreviations():
    parser = build_parser()
    args = parser.parse_args(
        ["launch", "--data_d", "x", "--algo", "ERM", "--output", "o", "--command_l=dummy", "--step", "3"]
        + ["--n_t", "2", "--single", "--skip_c", "--hold=0.1", "--seed", "5", "--hparams", "{}"]
    )
    assert (args.data_dir, args.algorithms, args.output_dir) == ("x", ["ERM"], "o")
    assert (args.command_launcher, args.steps, args.n_trials) == ("dummy", 3, 2)
    assert (args.single_test_envs, args.skip_confirmation, args.holdout_fraction) == (True, True, 0.1)
    assert (args.seed, args.hparams) == (5, "{}")
    defaults = parser.parse_args(["delete_incomplete"])
    assert (defaults.n_hparams_from, defaults.n_hparams, defaults.n_trials, defaults.seed) == (0, 20, 3, 0)
    assert (defaults.task, defaults.holdout_fraction) == ("domain_generalization", 0.2)


def test_the_script_has_upstreams_names():
    for name in ("Job", "all_test_env_combinations", "make_args_list", "ask_for_confirmation"):
        assert callable(getattr(sweep_script, name))
    assert "PACS" in sweep_script.DATASETS
    assert not [name for name in sweep_script.DATASETS if "Debug" in name]
    with pytest.raises(AttributeError):
        sweep_script.NoSuchName  # noqa: B018 - the look-up is the test


def test_missing_weights_are_reported_before_anything_is_written(forked_script, tmp_path):
    hparams = '{"featurizer": "alexnet", "weights_file": "missing.pth"}'
    alexnet = ("--datasets", "EmojiStyles", "--algorithms", "ERM", "--hparams", hparams)
    rejected = forked_script("sweep", "launch", *alexnet, "--output_dir", "sweep", "--skip_confirmation")
    assert rejected.returncode == 2
    assert "missing.pth" in rejected.stderr.splitlines()[-1]
    assert not (tmp_path / "sweep").exists()
    elsewhere = ("--command_launcher", "dummy", "--n_trials", 1, "--n_hparams", 1, "--single_test_envs")
    printed = forked_script(
        "sweep", "launch", *alexnet, *elsewhere, "--output_dir", "sweep", "--skip_confirmation"
    )
    assert printed.stdout.count("Dummy launcher:") == 4

import json
import tomllib
from pathlib import Path

import pytest

from domainbed.errors import UsageError
from domainbed.sweep.flags import FLAGS, parse
from domainbed.sweep.launch_checks import check_jobs
from domainbed.sweep.planned_jobs import make_jobs
from domainbed.sweep.sweep_file import read_sweep_file
from domainbed.training.config import TrainConfig
from domainbed.training.run_hparams import resolved_hparams

SWEEPS = Path(__file__).parents[2] / "sweeps"
PROTOCOLS = ("cvpr2024_protocol.toml", "domainbed_protocol.toml")
"""Tested by `test_protocol_files.py`: they have tens of thousands of runs."""

EXAMPLE = """
datasets = ["Debug28"]
n_trials = 6
preset = "slow"
[hparams]
lr = 0.5
batch_size = 8
[presets.fast]
steps = 10
n_trials = 1
[presets.fast.hparams]
lr = 0.25
PCGrad = { order = "shared" }
[presets.slow]
steps = 99
"""


@pytest.fixture
def sweep_file(tmp_path):
    def write(text):
        path = tmp_path / "sweep.toml"
        path.write_text(text, encoding="utf-8")
        return path

    return write


def test_a_preset_overrides_the_file(sweep_file):
    flags = read_sweep_file(sweep_file(EXAMPLE), "fast", FLAGS)
    hparams = json.loads(flags.pop("hparams"))
    assert flags == {"datasets": ["Debug28"], "n_trials": 1, "steps": 10}
    assert hparams == {"lr": 0.25, "batch_size": 8, "PCGrad": {"order": "shared"}}


def test_the_preset_in_the_file_is_the_default(sweep_file):
    assert read_sweep_file(sweep_file(EXAMPLE), None, FLAGS)["steps"] == 99


def test_an_empty_table_of_hparams_sets_no_flag(sweep_file):
    assert read_sweep_file(sweep_file("n_trials = 2\n[hparams]\n"), None, FLAGS) == {"n_trials": 2}


def test_the_command_line_overrides_the_file_and_the_file_the_defaults(sweep_file):
    path = sweep_file("single_test_envs = true\nholdout_fraction = 0\n" + EXAMPLE)
    args = parse(["launch", "--config", str(path), "--n_trials=2", "--preset", "fast"])
    assert (args.n_trials, args.steps, args.single_test_envs, args.n_hparams) == (2, 10, True, 20)
    assert args.holdout_fraction == 0
    args = parse(["launch", "--config", str(path), "--no-single_test_envs", "--hparams", '{"lr": 1}'])
    assert (args.single_test_envs, args.hparams) == (False, '{"lr": 1}')
    # A flag that repeats its default wins too.
    assert parse(["launch", "--config", str(path), "--n_trials", "3"]).n_trials == 3


@pytest.mark.parametrize(
    ("text", "message", "note"),
    [
        ("n_trails = 3", "unknown key 'n_trails'", "Did you mean n_trials"),
        ("command = 'launch'", "unknown key 'command'", None),
        ('preset = "quick"\n[presets.slow]', "no preset 'quick'", "Known: slow."),
        ("steps = ", "is not valid TOML", None),
        ("steps = '10'", "steps takes a value of type int, not '10'", None),
        ("steps = true", "steps takes a value of type int, not True", None),
        ("steps = 1.5", "steps takes a value of type int, not 1.5", None),
        ("holdout_fraction = 'half'", "holdout_fraction takes a value of type float, not 'half'", None),
        ("single_test_envs = 1", "single_test_envs takes a value of type bool, not 1", None),
        ("datasets = 'Debug28'", r"datasets takes a value of type list\[str\], not 'Debug28'", None),
        ("datasets = []", "datasets must not be empty", None),
        ("algorithms = ['ERM', 3]", r"algorithms takes a value of type list\[str\], not .*, 3", None),
        ("output_dir = ['a']", "output_dir takes a value of type str, not ", None),
        ("holdout_fraction = 1", "holdout_fraction must be less than 1, not 1", None),
        ("n_trials = 0", "n_trials must be at least 1, not 0", None),
        ("grouping = 'pooled'", r"grouping takes a value of type list\[str\], not 'pooled'", None),
        ("seed_scheme = 'pairs'", "seed_scheme must be one of upstream, paired, authors, not 'pairs'", None),
        ("hparams = '{}'", r"hparams must be a table \(\[hparams\]\), not '{}'", None),
        ("presets = 3", "presets must be a table", None),
        ("[presets]\nfast = 3", "presets.fast must be a table", None),
        ("preset = 'a'\n[presets.a]\nhparams = 3", "presets.a.hparams must be a table", None),
        ("[hparams]\nlr = 2020-01-01", "must be numbers, .* not 2020-01-01", None),
    ],
)
def test_invalid_files_are_refused(sweep_file, text, message, note):
    with pytest.raises(UsageError, match=message) as info:
        parse(["launch", "--config", str(sweep_file(text))])
    assert "\n" not in str(info.value)
    if note:
        assert note in info.value.__notes__[0]


def test_unreadable_files_are_refused(tmp_path):
    with pytest.raises(UsageError, match=r"cannot read sweep file .*none\.toml: No such file"):
        parse(["launch", "--config", str(tmp_path / "none.toml")])
    with pytest.raises(UsageError, match=r"cannot read sweep file .*: Is a directory"):
        parse(["launch", "--config", str(tmp_path)])
    (tmp_path / "latin.toml").write_bytes(b"task = '\xff'")
    with pytest.raises(UsageError, match="is not valid TOML"):
        parse(["launch", "--config", str(tmp_path / "latin.toml")])
    with pytest.raises(UsageError, match="--preset names a preset of a sweep file"):
        parse(["launch", "--preset", "fast"])


def presets():
    for path in sorted({*SWEEPS.glob("*.toml")} - {SWEEPS / name for name in PROTOCOLS}):
        content = tomllib.loads(path.read_text(encoding="utf-8"))
        if "preset" not in content:
            yield path.name, None
        yield from ((path.name, preset) for preset in content.get("presets", ()))


@pytest.mark.parametrize(("name", "preset"), list(presets()))
def test_every_sweep_file_of_ours_makes_runs_that_train_accepts(name, preset, data_dir):
    flags = ["--preset", preset] if preset else []
    # For runs elsewhere: this machine need not have the weights.
    flags += ["--command_launcher", "dummy"]
    args = parse(["launch", "--config", str(SWEEPS / name), "--data_dir", str(data_dir), *flags])
    jobs = make_jobs(args)
    check_jobs(args, jobs)
    assert len({job.name for job in jobs}) == len(jobs)
    if name == "iccv2021_table1.toml":
        assert len(jobs) == 3 * 8 * 4 * 20
    if name == "quickstart.toml":
        assert len(jobs) == 4 * 4 * 8
    if name == "colored_mnist.toml":
        assert len(jobs) == {"upstream_tau": 3 * 3, "domainbed": 6 * 3 * 3 * 20}.get(preset, 6 * 3 * 3 * 8)
        hparams = [resolved_hparams(TrainConfig(**job.train_args)) for job in jobs]
        assert {values.get("mnist") for values in hparams} == {"all" if preset == "domainbed" else "test"}
        assert (preset == "upstream_tau") == all(values.get("tau") == 1 for values in hparams)
        warm_ups = [values["penalty_anneal_iters"] for values in hparams if "penalty_anneal_iters" in values]
        assert (max(warm_ups, default=0) < 600) is (preset != "domainbed")
    if name == "mechanisms.toml":  # one learning rate for all: only the method differs
        assert len(jobs) == 7 * 4 * 10
        assert len({resolved_hparams(TrainConfig(**job.train_args))["lr"] for job in jobs}) == 1
        assert len({job.train_args["seed"] for job in jobs}) == 4 * 10
    if name in ("colored_digits.toml", "colored_mnist_irm.toml"):
        assert len(jobs) == (10 if preset == "grey" else 7 * 10)
        assert {tuple(job.train_args["test_envs"]) for job in jobs} == {(2,)}
        assert {"grey" in job.train_args["hparams"] for job in jobs} == {preset == "grey"}


def test_paired_presets_give_all_algorithms_of_a_trial_the_same_seed(data_dir):
    args = parse(["launch", "--config", str(SWEEPS / "iccv2021_table1.toml"), "--data_dir", str(data_dir)])
    assert len({job.train_args["seed"] for job in make_jobs(args)}) == 3 * 4 * 20

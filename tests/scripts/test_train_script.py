import importlib
import json
import subprocess
import sys
from pathlib import Path

import pytest

from domainbed.errors import UsageError
from domainbed.training.config import SETTINGS, TrainConfig
from domainbed.training.train_command import build_parser

ROOT = Path(__file__).parents[2]
HEAVY = {"torch", "torchvision", "wilds", "timm", "pandas", "scipy", "matplotlib", "submitit"}


def test_defaults_equal_those_of_train_config():
    assert TrainConfig(**vars(build_parser().parse_args([]))) == TrainConfig()


@pytest.mark.parametrize(
    ("words", "name", "value"),
    [
        (["--test_env", "2"], "test_envs", [2]),
        (["--test_envs=2"], "test_envs", [2]),
        (["--test_envs", "0", "2"], "test_envs", [0, 2]),
        (["--test_envs", "photo", "2"], "test_envs", ["photo", 2]),
        (["--algo", "IRM"], "algorithm", "IRM"),
        (["--output=x y"], "output_dir", "x y"),
        (["--trial", "3"], "trial_seed", 3),
        (["--step", "7"], "steps", 7),
        (["--hparams", "{}"], "hparams", "{}"),
        (["--hparams_seed=4"], "hparams_seed", 4),
        (["--seed", "9"], "seed", 9),
        (["--holdout", "0.5"], "holdout_fraction", 0.5),
        (["--uda", "0.5"], "uda_holdout_fraction", 0.5),
        (["--check", "5"], "checkpoint_freq", 5),
        (["--skip"], "skip_model_save", True),
        (["--task", "domain_adaptation"], "task", "domain_adaptation"),
    ],
)
def test_flags_and_abbreviations_in_use(words, name, value):
    assert getattr(build_parser().parse_args(words), name) == value


def test_the_name_of_a_target_is_its_index_in_records_and_for_resuming(forked_script, tmp_path):
    flags = ("--dataset", "EmojiStyles", "--steps=1", "--hparams", '{"batch_size": 2}', "--output_dir", "run")
    done = forked_script("train", *flags, "--test_envs", "line")
    assert done.returncode == 0, done.stderr
    (record,) = map(json.loads, (tmp_path / "run" / "results.jsonl").read_text().splitlines())
    assert record["args"]["test_envs"] == [2]
    assert "test_envs: [2]" in done.stdout
    again = forked_script("train", *flags, "--test_envs", "2")
    assert "run already holds this run, finished." in again.stdout


@pytest.mark.parametrize("module", ["domainbed_gs.scripts.similarity", "domainbed_gs.scripts.alignment"])
def test_studies_that_train_take_names_of_targets(module, tmp_path):
    main = importlib.import_module(module).main
    with pytest.raises(UsageError, match="--test_envs Lin: EmojiStyles has no such environment"):
        main(["--dataset", "EmojiStyles", "--test_envs", "Lin", "--output_dir", str(tmp_path)])
    with pytest.raises(UsageError, match="--test_envs 2 2 names an environment twice"):
        main(["--dataset", "EmojiStyles", "--test_envs", "line", "2", "--output_dir", str(tmp_path)])


def test_our_flags_make_no_abbreviation_of_upstreams_ambiguous():
    upstream = list(SETTINGS)[:16]
    for name in upstream:
        for short in (name[:end] for end in range(1, len(name))):
            if [each for each in (*upstream, "help") if each.startswith(short)] == [name]:
                words = [f"--{short}"] if SETTINGS[name].type is bool else [f"--{short}", "1"]
                parsed = vars(build_parser().parse_args(words))
                changed = {key for key, value in parsed.items() if value != SETTINGS[key].default}
                assert changed == {name}, short


def test_a_run_prints_and_leaves_what_upstreams_does(forked_script, tmp_path):
    flags = ("--dataset", "Debug28", "--steps=3", "--checkpoint_freq", 1, "--hparams", '{"batch_size": 8}')
    done = forked_script("train", *flags, "--output_dir", "deep/run", "--save_model_every_checkpoint")
    assert (done.returncode, done.stderr) == (0, "")
    run = tmp_path / "deep" / "run"
    names = {path.name for path in run.iterdir() if not path.name.startswith(".")}
    models = {"model.pkl", *(f"model_step{step}.pkl" for step in range(3))}
    assert names == {"out.txt", "err.txt", "results.jsonl", "run.json", "done", *models}
    assert (run / "done").read_bytes() == b"done"
    assert (run / "err.txt").read_text(encoding="utf-8") == ""
    assert (run / "out.txt").read_text(encoding="utf-8") == done.stdout
    titles = [line for line in done.stdout.splitlines() if line and not line[0].isspace()][:3]
    assert titles == ["Environment:", "Args:", "HParams:"]
    lines = (run / "results.jsonl").read_text(encoding="utf-8").splitlines()
    assert [json.loads(line)["step"] for line in lines] == [0, 1, 2]
    again = forked_script("train", *flags, "--output_dir", "deep/run", "--save_model_every_checkpoint")
    assert again.returncode == 0
    assert again.stdout == "deep/run already holds this run, finished. Use --restart to run it again.\n"


@pytest.mark.parametrize("name", sorted(p.stem for p in (ROOT / "domainbed/scripts").glob("[!_]*.py")))
def test_help_is_cheap(name):
    found = imported("-m", f"domainbed.scripts.{name}", "--help")
    assert "argparse" in found
    assert not found & HEAVY


def test_importing_the_package_is_cheap():
    assert not imported("-c", "import domainbed, domainbed.algorithms, domainbed.datasets") & HEAVY


def imported(*words):
    done = subprocess.run(
        [sys.executable, "-X", "importtime", *words], cwd=ROOT, capture_output=True, text=True, check=True
    )
    return {line.rpartition("|")[2].strip() for line in done.stderr.splitlines() if "import time:" in line}

"""Declarations of settings, and everything that is made from them."""

import argparse
import dataclasses
import json
import os
import re
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from domainbed.errors import UsageError
from domainbed.hparams import Kind
from domainbed.training.config import SETTINGS, TrainConfig
from domainbed.training.settings import InSweep, flag, flags_of, setting, settings_of

ROOT = Path(__file__).parents[2]


@dataclasses.dataclass(frozen=True)
class Declared:
    plain = 3
    undeclared: int = 4
    name: str | None = flag(None, "a name, 100 % yours")
    size: float = flag(0.5, "a size", above=0, at_most=1)
    sides: list[int] = flag([1, 2], "some sides", at_least=1)
    colour: str = flag("red", "a colour", choices=("red", "blue"))
    loud: bool = flag(False, "make noise")


FLAGS = flags_of(Declared)


def parse(*words):
    parser = argparse.ArgumentParser()
    for declared in FLAGS.values():
        declared.add_to(parser)
    return parser, vars(parser.parse_args(words))


def test_a_declaration_is_a_field_with_its_default_and_a_flag():
    assert list(FLAGS) == ["name", "size", "sides", "colour", "loud"]
    parser, values = parse()
    assert Declared(**values) == Declared()
    assert Declared().sides is not Declared().sides
    assert parse("--sides", "3", "4", "--loud", "--size=1")[1] == {
        "name": None,
        "size": 1.0,
        "sides": [3, 4],
        "colour": "red",
        "loud": True,
    }
    text = " ".join(parser.format_help().split())
    assert "--name NAME a name, 100 % yours --size SIZE a size (default: 0.5)" in text
    assert "some sides (default: 1 2) --colour {red,blue} a colour (default: red) --loud make noise" in text


@pytest.mark.parametrize(
    ("name", "value", "message"),
    [
        ("size", 0, "--size must be more than 0, not 0"),
        ("size", 1.5, "--size must be at most 1, not 1.5"),
        ("size", float("nan"), "--size must be more than 0, not nan"),
        ("sides", [1, 0], "--sides must be at least 1, not 0"),
        ("colour", "rad", "--colour must be one of red, blue, not 'rad'"),
        ("colour", None, "--colour must be one of red, blue, not None"),
    ],
)
def test_values_outside_the_limits_are_refused(name, value, message):
    with pytest.raises(UsageError) as info:
        FLAGS[name].check(value)
    assert str(info.value) == message


def test_values_inside_the_limits_pass():
    for name, value in {"name": None, "size": 1, "sides": [1, 9], "colour": "blue", "loud": True}.items():
        FLAGS[name].check(value)


@pytest.mark.parametrize(
    ("name", "value", "converted"),
    [
        ("name", Path("a/b"), "a/b"),
        ("name", {"a": np.float64(0.5)}, '{"a": 0.5}'),
        ("size", np.float32(0.5), 0.5),
        ("size", 1, 1),
        ("sides", np.array([1, 2]), [1, 2]),
        ("sides", (), []),
        ("loud", True, True),
    ],
)
def test_values_of_a_function_call_become_plain_python(name, value, converted):
    found = FLAGS[name].converted(value)
    assert (found, type(found)) == (converted, type(converted))


@pytest.mark.parametrize(
    ("name", "value", "type_"),
    [
        ("name", 3, "str"),
        ("size", "0.5", "float"),
        ("size", True, "float"),
        ("size", None, "float"),
        ("sides", "12", r"list\[int\]"),
        ("sides", [0.5], r"list\[int\]"),
        ("sides", [True], r"list\[int\]"),
        ("loud", 1, "bool"),
    ],
)
def test_values_of_another_type_are_refused(name, value, type_):
    with pytest.raises(UsageError, match=rf"setting {name} takes a value of type {type_}, not "):
        FLAGS[name].converted(value)


def test_defaults_of_a_declaration():
    @dataclasses.dataclass
    class Settings:
        steps: int = setting(3, "updates")
        folder: str = setting("here", "a folder", recorded=False, value_before=None)

    steps, folder = settings_of(Settings).values()
    assert (steps.kind, steps.in_sweep, steps.recorded, steps.compared) == (
        Kind.DESIGN,
        InSweep.NEVER,
        True,
        True,
    )
    assert (steps.value_before, folder.value_before, folder.compared) == (3, None, False)


def test_kinds_of_a_runs_settings():
    of_kind = {kind: {name for name, each in SETTINGS.items() if each.kind is kind} for kind in Kind}
    assert of_kind[Kind.SEED] == {"seed", "trial_seed"}
    assert of_kind[Kind.SEARCHED] == {"hparams_seed"}
    assert {"data_dir", "output_dir", "device", "num_workers"} <= of_kind[Kind.INCIDENTAL]
    assert {"dataset", "algorithm", "test_envs", "steps", "splits", "grouping"} <= of_kind[Kind.DESIGN]
    not_recorded = {name for name, each in SETTINGS.items() if not each.recorded}
    assert not_recorded <= of_kind[Kind.INCIDENTAL]
    not_compared = {"output_dir", "shared_hparams"}
    assert TrainConfig().compared().keys() == TrainConfig().recorded().keys() - not_compared


ADDED = re.search(
    r"^```python\n(    colour: .*?)^```", (ROOT / "CONTRIBUTING.md").read_text(encoding="utf-8"), re.M | re.S
)[1]
"""The example of CONTRIBUTING.md."""

USE = """
import json, sys
from pathlib import Path
from domainbed.errors import UsageError
from domainbed.scripts import sweep, train
from domainbed.sweep.flags import build_parser as sweep_parser
from domainbed.training.config import TrainConfig
from domainbed.training.train_command import build_parser as train_parser

assert "--colour {red,blue}" in train_parser().format_help()
assert "--colour {red,blue}" in sweep_parser().format_help()
assert TrainConfig(colour="blue").recorded()["colour"] == "blue"
run = ["--dataset", "Debug28", "--steps", "1", "--skip_model_save", "--hparams", '{"featurizer": "mlp"}']
train.main([*run, "--colour", "blue", "--output_dir", "run"])
(record,) = map(json.loads, Path("run/results.jsonl").read_text().splitlines())
assert record["args"]["colour"] == "blue"
try:
    train.main([*run, "--output_dir", "run"])
except UsageError as error:
    assert "(colour was 'blue', now 'red')" in str(error)
    refused = True
assert refused
settings = json.loads(Path("run/run.json").read_text())
del settings["settings"]["colour"]
Path("run/run.json").write_text(json.dumps(settings))
train.main([*run, "--colour", "blue", "--output_dir", "run"])
grid = ["--datasets", "Debug28", "--algorithms", "ERM", "--n_trials", "1", "--n_hparams", "1"]
launch = ["launch", *grid, "--single_test_envs", "--skip_confirmation", "--command_launcher", "dummy"]
sweep.main([*launch, "--output_dir", "with", "--colour", "blue"])
sweep.main([*launch, "--output_dir", "without"])
try:
    sweep.main([*launch, "--output_dir", "with", "--colour", "pink"])
except UsageError as error:
    print(error)
"""


def test_a_new_setting_takes_one_declaration(tmp_path):
    """In a copy of the package with one more declaration in config.py, and no other change."""
    package = tmp_path / "domainbed"
    (package / "training").mkdir(parents=True)
    training = ROOT / "domainbed/training"
    for file in [*(ROOT / "domainbed").iterdir(), *training.glob("*.py"), training / "trackers"]:
        copy = tmp_path / file.relative_to(ROOT)
        if not copy.exists():
            copy.symlink_to(file)
    config = package / "training" / "config.py"
    text = config.read_text(encoding="utf-8")
    config.unlink()
    config.write_text(text.replace("\n    def recorded(", f"{ADDED}\n    def recorded(", 1), encoding="utf-8")
    done = subprocess.run(
        [sys.executable, "-c", USE],
        cwd=tmp_path,
        env=os.environ | {"PYTHONPATH": f"{tmp_path}:{ROOT}"},
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0, done.stderr
    assert "run already holds this run, finished" in done.stdout
    commands = [line for line in done.stdout.splitlines() if line.startswith("Dummy launcher: ")]
    assert ["--colour blue" in line for line in commands] == [True] * 3 + [False] * 3
    assert done.stdout.splitlines()[-1] == "--colour must be one of red, blue, not 'pink'"
    jobs = [json.loads((tmp_path / name / "sweep.json").read_text())["jobs"] for name in ("with", "without")]
    assert {args.get("colour") for args in jobs[0].values()} == {"blue"}
    assert not any("colour" in args for args in jobs[1].values())

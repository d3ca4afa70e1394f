"""Plugins as users write them: modules loaded by scripts in new processes."""

import json
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]

PLUGIN = '''
import torch
from domainbed.algorithms import REGISTRY as ALGORITHMS
from domainbed.algorithms.erm import ERM
from domainbed.command_launchers import REGISTRY as LAUNCHERS
from domainbed.datasets import REGISTRY as DATASETS
from domainbed.datasets.debug import Debug28
from domainbed.hparams import OPTIONS, Hparam, const
from domainbed.model_selection import METHODS, OracleSelectionMethod
from domainbed.networks import FEATURIZERS
from domainbed.results.report import SECTIONS
from domainbed.training.splits import SCHEMES, holdout


class Mean(torch.nn.Module):
    """Mean of each channel."""

    def __init__(self, input_shape, hparams):
        super().__init__()
        self.n_outputs = input_shape[0]

    def forward(self, x):
        return x.mean((2, 3))


class Section:
    def add_arguments(self, parser):
        parser.add_argument("--greeting")

    def wanted(self, args):
        return args.greeting is not None

    def write(self, context):
        print(args_greeting(context), len(context.records))


def args_greeting(context):
    return context.args.greeting


def register():
    ALGORITHMS["MyERM"] = type("MyERM", (ERM,), {"HPARAMS": {"mine": Hparam(3, const(3))}})
    FEATURIZERS["mean"] = Mean
    DATASETS["MyDebug"] = type("MyDebug", (Debug28,), {})
    OPTIONS["my_option"] = Hparam(1, const(1), "an option")
    METHODS["mine"] = type("Mine", (OracleSelectionMethod,), {"name": "my selection"})
    LAUNCHERS["mine"] = lambda commands: print("mine:", len(commands))
    SECTIONS["mine"] = Section()
    SCHEMES["mine"] = holdout
'''


@pytest.fixture
def run(tmp_path, forked_python):
    """`run(module, *flags, plugins=...)`: its completed process, in a directory with the plugins."""
    (tmp_path / "good.py").write_text(PLUGIN)
    (tmp_path / "bad.py").write_text("import a_module_that_nobody_has\n")

    def start(*arguments, plugins="good:register"):
        environment = {"PYTHONPATH": f"{ROOT}:{tmp_path}", "DOMAINBED_PLUGINS": plugins}
        return forked_python(["-m", *arguments], tmp_path, environment)

    return start


def test_a_plugin_can_add_to_every_registry(tmp_path, run):
    hparams = '{"featurizer": "mean", "mine": 4, "my_option": 2}'
    flags = ("--dataset", "MyDebug", "--algorithm", "MyERM", "--steps", "2", "--splits", "mine")
    trained = run("domainbed.scripts.train", *flags, "--hparams", hparams, "--output_dir", "sweep/run")
    assert trained.returncode == 0, trained.stderr
    records = [json.loads(line) for line in (tmp_path / "sweep/run/results.jsonl").read_text().splitlines()]
    assert records[-1]["hparams"]["mine"] == 4
    report = ("--input_dir", "sweep", "--selection", "mine", "--greeting", "hello")
    shown = run("domainbed.scripts.collect_results", *report)
    assert shown.returncode == 0, shown.stderr
    assert "Dataset: MyDebug, model selection method: my selection" in shown.stdout
    assert shown.stdout.endswith("hello 2\n")
    grid = ("--datasets", "MyDebug", "--algorithms", "MyERM", "--n_trials", "1", "--n_hparams", "1")
    where = ("--output_dir", "mine", "--command_launcher", "mine", "--skip_confirmation")
    launched = run("domainbed.scripts.sweep", "launch", *grid, *where)
    assert "mine: 6" in launched.stdout, launched.stderr


def test_a_plugin_that_fails_to_import_is_named_and_skipped(run):
    shown = run("domainbed.scripts.list", "--json", plugins="bad:register,good:register")
    assert shown.returncode == 0
    assert "plugin bad:register (bad:register) is skipped: ModuleNotFoundError" in shown.stderr
    listed = json.loads(shown.stdout)
    assert {"MyERM", "AgrSum"} <= listed["algorithms"].keys()
    assert listed["plugins"]["good:register"]["about"] == "ok"
    assert "a_module_that_nobody_has" in listed["plugins"]["bad:register"]["about"]


def test_domainbed_gs_is_found_in_a_checkout_that_is_not_installed(tmp_path):
    # -S leaves out site-packages, and with them all entry points.
    code = "from domainbed import plugins; print(plugins.found())"
    shown = subprocess.run(
        [sys.executable, "-S", "-c", code],
        env={"PYTHONPATH": str(ROOT)},
        capture_output=True,
        text=True,
        cwd=tmp_path,
    )
    assert shown.stdout == "{'domainbed_gs': 'domainbed_gs:register'}\n", shown.stderr

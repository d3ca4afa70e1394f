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


def install(tmp_path, package, value):
    """Install a package with an entry point that is called `shared`."""
    folder = tmp_path / f"{package}-1.0.dist-info"
    folder.mkdir()
    (folder / "METADATA").write_text(f"Metadata-Version: 2.1\nName: {package}\nVersion: 1.0\n")
    (folder / "entry_points.txt").write_text(f"[domainbed.plugins]\nshared = {value}\n")


def test_two_plugins_of_one_name_are_an_error_that_names_both(tmp_path, run):
    install(tmp_path, "first", "good:register")
    install(tmp_path, "second", "bad:register")
    shown = run("domainbed.scripts.list", "algorithms", plugins="")
    assert shown.returncode == 2
    assert shown.stderr.count("\n") == 1
    assert "two plugins are called shared: " in shown.stderr
    assert "good:register of package first" in shown.stderr
    assert "bad:register of package second" in shown.stderr


def test_one_plugin_that_is_found_twice_is_one(tmp_path, run):
    install(tmp_path, "first", "shared:register")
    install(tmp_path, "again", "shared:register")
    (tmp_path / "shared.py").write_text(PLUGIN)
    shown = run("domainbed.scripts.list", "algorithms", plugins="shared")
    assert shown.returncode == 0, shown.stderr
    assert "MyERM" in shown.stdout


REPLACEMENT = """
from domainbed.algorithms import REGISTRY, erm


@REGISTRY.register({})
class ERM(erm.ERM):
    pass
"""


def test_a_plugin_cannot_replace_a_baseline_without_a_word(tmp_path, run):
    flags = ("--dataset", "Debug28", "--algorithm", "ERM", "--steps", "1", "--output_dir", "run")
    (tmp_path / "taking.py").write_text(REPLACEMENT.format(""))
    refused = run("domainbed.scripts.train", *flags, plugins="taking")
    assert refused.returncode == 2
    assert refused.stderr.count("\n") == 1
    assert "Algorithm ERM is registered by domainbed.algorithms.erm and by taking; " in refused.stderr
    (tmp_path / "meaning.py").write_text(REPLACEMENT.format("override=True"))
    trained = run("domainbed.scripts.train", *flags, plugins="meaning")
    assert trained.returncode == 0, trained.stderr
    (record,) = map(json.loads, (tmp_path / "run/results.jsonl").read_text().splitlines())
    assert record["replaced"] == {"algorithm": "meaning"}
    assert json.loads((tmp_path / "run/run.json").read_text())["replaced"] == {"algorithm": "meaning"}


DECLARING = """
import torch
from domainbed.algorithms import REGISTRY as ALGORITHMS
from domainbed.algorithms.erm import ERM
from domainbed.datasets import REGISTRY as DATASETS, MultipleDomainDataset
from domainbed.hparams import Hparam, const, uniform
from domainbed.networks import FEATURIZERS, FeaturizerModule
from torch.utils.data import TensorDataset


class Shifted(MultipleDomainDataset):
    ENVIRONMENTS = ["near", "far", "wide"]
    NEEDS_DATA = False
    HPARAMS = {"shift": Hparam(1.5, uniform(2, 3), "of the environments", above=0)}

    def __init__(self, root, test_envs, hparams):
        super().__init__()
        self.input_shape, self.num_classes, self.datasets = (2,), 2, []
        for i in range(3):
            y = torch.arange(20) % 2
            x = torch.randn(20, 2) + i * hparams["shift"]
            self.datasets.append(TensorDataset(x, y))


DATASETS["Shifted"] = Shifted


@DATASETS.register()
class Careless(Shifted):
    def __init__(self, root, test_envs, hparams):
        super().__init__(root, test_envs, hparams)
        self.slope = hparams["slope"]


@DATASETS.register()
class Empty(Shifted):
    def __init__(self, root, test_envs, hparams):
        MultipleDomainDataset.__init__(self)


@FEATURIZERS.register("scaled")
class Scaled(FeaturizerModule):
    HPARAMS = {"scale": Hparam(2.0, const(2.0), "of the features")}
    n_outputs = 2

    def __init__(self, input_shape, hparams):
        super().__init__()
        self.scale = hparams["scale"]

    def forward(self, x):
        return self.scale * x


@ALGORITHMS.register()
class Late(ERM):
    def update(self, minibatches, unlabeled=None):
        return {"loss": self.hparams["margin"]}
"""


def test_any_plugin_class_declares_its_hyper_parameters_beside_itself(tmp_path, run):
    (tmp_path / "declaring.py").write_text(DECLARING)

    def train(dataset, *flags, algorithm="ERM", hparams='{"featurizer": "scaled", "batch_size": 4}'):
        common = ("--steps", "1", "--hparams", hparams, "--output_dir", f"run-{dataset}-{len(flags)}")
        names = ("--dataset", dataset, "--algorithm", algorithm)
        return run("domainbed.scripts.train", *names, *common, *flags, plugins="declaring")

    def hparams_of(name):
        return json.loads((tmp_path / name / "results.jsonl").read_text().splitlines()[-1])["hparams"]

    hparams = '{"featurizer": "scaled", "scale": 4.0, "batch_size": 4}'
    trained = train("Shifted", "--hparams_seed", "1", hparams=hparams)
    assert trained.returncode == 0, trained.stderr
    found = hparams_of("run-Shifted-2")
    assert 2 < found["shift"] < 3
    assert found["scale"] == 4
    for wrong, where, line in (
        (train("Shifted", hparams='{"shift": -1.0}'), "", "hyper-parameter shift must be more than 0"),
        (train("Shifted", hparams='{"scale": 4.0}'), "", "leave it out. It is read by featurizer scaled"),
        (train("Empty"), "", "the constructor of dataset Empty must set self.datasets; it does not"),
        (train("Careless"), "Careless.__init__", "reads the hyper-parameter 'slope', which is not dec"),
        (
            train("Shifted", "--restart", algorithm="Late"),
            "Late.update",
            "reads the hyper-parameter 'margin', which is not declared; put it into HPARAMS",
        ),
    ):
        assert wrong.returncode == 2, wrong.stderr
        assert wrong.stderr.count("\n") == 1, wrong.stderr
        assert where in wrong.stderr
        assert line in wrong.stderr


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

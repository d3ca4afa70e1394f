"""Sweeps with relative paths that go on in another folder than the one in which they were launched."""

import hashlib
import json
import os
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

import domainbed
from domainbed.errors import UsageError
from domainbed.results.ensembles import ModelPredictions
from domainbed.sweep.job import Job
from domainbed.sweep.launch import launch
from domainbed.sweep.launch_folder import check_launched_here
from domainbed.sweep.launchers import DummyLauncher, LaunchOptions
from domainbed.sweep.manifest import add_to_manifest, read_manifest
from domainbed_gs.trained_models.loading import LoadOptions, load

ROOT = Path(__file__).parents[2]
FLAGS = (
    *("--algorithms", "ERM", "--single_test_envs", "--test_envs", "0", "--n_trials", "1"),
    *("--n_hparams", "1", "--steps", "1", "--skip_model_save", "--skip_confirmation"),
)
HPARAMS = {"input_size": 8, "featurizer": "mlp", "mlp_width": 2, "batch_size": 2}
PHOTOS = ("--datasets", "photos", "--hparams", json.dumps(HPARAMS), *FLAGS, "--cache_dir", "none")
PLUGIN = """
from domainbed.networks import FEATURIZERS, FeaturizerModule
from domainbed.networks.published import Pretrained
from domainbed.networks.weights import initialise
from torch import nn


@FEATURIZERS.register("tiny")
class Tiny(FeaturizerModule):
    n_outputs = 2

    def __init__(self, input_shape, hparams):
        super().__init__()
        self.layer = nn.Linear(1, 2)
        self.activation = nn.Identity()
        self.provenance = initialise(self.layer, Pretrained("tiny", "", ()), hparams, ())

    def forward(self, x):
        return self.activation(self.layer(x.mean((1, 2, 3))[:, None]))
"""


@pytest.fixture
def home(tmp_path):
    """The folder in which sweeps are launched: it has images in `photos`."""
    rng = np.random.default_rng(0)
    for environment in ("art", "cartoon", "photo"):
        for label in ("cat", "dog"):
            folder = tmp_path / "home/photos" / environment / label
            folder.mkdir(parents=True)
            for number in range(4):
                pixels = rng.integers(0, 256, (8, 8, 3), dtype=np.uint8)
                Image.fromarray(pixels).save(folder / f"{number}.png")
    return tmp_path / "home"


@pytest.fixture
def elsewhere(tmp_path):
    (tmp_path / "elsewhere").mkdir()
    return tmp_path / "elsewhere"


@pytest.fixture
def ready(home, forked_script):
    """`ready(*flags)`: a sweep in `home`/sweep, launched from there, none of whose runs has started."""

    def make(*flags):
        flags = (*PHOTOS, *flags, "--output_dir", "sweep", "--command_launcher", "dummy")
        done = forked_script("sweep", "launch", *flags, cwd=home)
        assert done.returncode == 0, done.stderr
        return home / "sweep"

    return make


def runs_of(sweep_dir):
    return [path for path in sweep_dir.iterdir() if path.is_dir()]


def first_record(run):
    return json.loads((run / "results.jsonl").read_text(encoding="utf-8").splitlines()[0])


def test_every_path_option_works_for_a_worker_in_another_folder(home, elsewhere, write_mnist, forked_python):
    """Of datasets, data_dir, weights_file, plugin modules, cache_dir, write_splits, then splits."""
    write_mnist(home / "data")
    (home / "lists").mkdir()
    images = sorted((home / "photos").rglob("*.png"))
    rows = [
        f"{os.path.relpath(image, home / 'lists')},{image.parts[-2]},{image.parts[-3]}" for image in images
    ]
    (home / "lists/mine.csv").write_text("\n".join(["path,label,environment", *rows]))
    (home / "tiny_network.py").write_text(PLUGIN)
    torch.save({"weight": torch.ones(2, 1), "bias": torch.ones(2)}, home / "weights.pt")
    of_tiny = {"input_size": 8, "featurizer": "tiny", "batch_size": 2, "weights_file": "weights.pt"}
    hparams = json.dumps(of_tiny)
    typed = ("--data_dir", "data", "--hparams", hparams, "--output_dir", "sweep", *FLAGS)

    def sweep(cwd, *flags):
        environment = {"PYTHONPATH": str(ROOT), "DOMAINBED_PLUGINS": "tiny_network"}
        done = forked_python(["-m", "domainbed.scripts.sweep", *flags], cwd, environment)
        assert done.returncode == 0, done.stdout + done.stderr

    datasets = ("photos", "lists/mine.csv", "ColoredMNIST")
    outputs = ("--cache_dir", "cache", "--write_splits", "splits/{dataset}.json")
    sweep(home, "launch", "--datasets", *datasets, *typed, *outputs, "--command_launcher", "dummy")
    sweep(elsewhere, "work", "--output_dir", "../home/sweep")

    runs = runs_of(home / "sweep")
    assert len(runs) == 3
    assert {path.name for path in (home / "splits").iterdir()} == {
        "photos.json",
        "mine.json",
        "ColoredMNIST.json",
    }
    assert len(list((home / "cache").glob("*.images"))) == 6  # of the folder and the list
    digest = hashlib.sha256((home / "weights.pt").read_bytes()).hexdigest()
    for run in runs:
        record = first_record(run)
        assert record["weights"] == {"name": "weights.pt", "sha256": digest}
        args = {name: record["args"][name] for name in ("dataset", "data_dir", "hparams")}
        assert args["dataset"] in datasets
        assert (args["data_dir"], args["hparams"]) == ("data", hparams)  # as typed

    sweep(
        home,
        "launch",
        "--datasets",
        "photos",
        *typed,
        "--splits",
        "splits/{dataset}.json",
        "--command_launcher",
        "dummy",
    )
    sweep(elsewhere, "work", "--output_dir", str(home / "sweep"))
    (run,) = set(runs_of(home / "sweep")) - set(runs)
    split = json.loads((home / "splits/photos.json").read_text())["environments"]
    assert first_record(run)["sizes"] == {
        f"env{i}_{kind}": len(split[name][kind])
        for i, name in enumerate(("art", "cartoon", "photo"))
        for kind in ("in", "out")
    }
    assert list(elsewhere.iterdir()) == []


def test_a_launch_from_another_folder_goes_on_with_the_runs_of_the_first(ready, elsewhere, forked_script):
    sweep_dir = ready()
    for run in runs_of(sweep_dir):
        run.rmdir()  # as if it had been killed before the run started
    done = forked_script("sweep", "launch", *PHOTOS, "--output_dir", sweep_dir, cwd=elsewhere)
    assert done.returncode == 0, done.stderr
    assert f"Relative paths start in {sweep_dir.parent}, where this sweep was launched first." in done.stdout
    (run,) = runs_of(sweep_dir)
    assert (run / "done").exists()
    assert list(elsewhere.iterdir()) == []


def test_a_launch_from_a_folder_with_another_file_of_that_path_is_refused(ready, elsewhere, forked_script):
    sweep_dir = ready()
    (elsewhere / "photos").mkdir()
    done = forked_script("sweep", "launch", *PHOTOS, "--output_dir", sweep_dir, cwd=elsewhere)
    assert done.returncode == 2
    assert done.stderr == (
        f"error: --dataset photos is {elsewhere}/photos here, but {sweep_dir} was launched in "
        f"{sweep_dir.parent}, where its paths start; launch it from there, or give the absolute path.\n"
    )
    assert [run.exists() for run in runs_of(sweep_dir)] == [True]


def test_a_folder_that_is_gone_is_named_and_a_new_launch_sets_another(
    ready, elsewhere, tmp_path, forked_script
):
    home = ready().parent
    moved = home.rename(tmp_path / "moved")
    done = forked_script("sweep", "work", "--output_dir", "../moved/sweep", cwd=elsewhere)
    assert done.returncode == 2
    assert done.stderr == (
        f"error: ../moved/sweep was launched in {home}, which does not exist here, and --dataset photos "
        "starts there; launch the sweep again, from the folder that has it now.\n"
    )
    done = forked_script("sweep", "launch", *PHOTOS, "--output_dir", "sweep", cwd=moved)
    assert done.returncode == 0, done.stderr
    assert read_manifest(moved / "sweep").folder == moved
    done = forked_script("sweep", "work", "--output_dir", "../moved/sweep", cwd=elsewhere)
    assert done.returncode == 0, done.stderr


def test_a_sweep_without_relative_paths_needs_no_folder(home, elsewhere, tmp_path, forked_script):
    debug = (
        "--datasets",
        "Debug28",
        "--hparams",
        '{"featurizer": "mlp", "mlp_width": 2, "batch_size": 2}',
        *FLAGS,
        "--output_dir",
        tmp_path / "sweep",
    )
    assert not forked_script(
        "sweep", "launch", *debug, "--command_launcher", "dummy", cwd=elsewhere
    ).returncode
    elsewhere.rmdir()
    done = forked_script("sweep", "work", "--output_dir", "../sweep", cwd=home)
    assert done.returncode == 0, done.stderr


def test_a_worker_on_an_older_sweep_says_where_to_go_and_fails_no_run(ready, elsewhere, forked_script):
    sweep_dir = ready()
    content = json.loads((sweep_dir / "sweep.json").read_text())
    del content["folder"]
    (sweep_dir / "sweep.json").write_text(json.dumps(content))
    done = forked_script("sweep", "work", "--output_dir", sweep_dir, cwd=elsewhere)
    assert done.returncode == 2
    assert done.stderr == (
        f"error: --dataset photos does not exist here, and {sweep_dir}/sweep.json is of a version that did "
        "not record where the sweep was launched; change to that folder, and try again.\n"
    )
    (run,) = runs_of(sweep_dir)
    assert not (run / "failed.json").exists()
    done = forked_script("sweep", "work", "--output_dir", "sweep", cwd=sweep_dir.parent)
    assert done.returncode == 0, done.stderr
    assert (run / "done").exists()


def test_a_launch_by_a_function_call_is_refused_in_another_folder(tmp_path, monkeypatch):
    args = {"dataset": "Debug28", "algorithm": "ERM", "test_envs": [0], "hparams_seed": 0, "data_dir": "data"}
    (tmp_path / "sweep").mkdir()
    add_to_manifest(tmp_path / "sweep", {}, (), folder=tmp_path)
    monkeypatch.chdir(tmp_path.parent)
    jobs = [Job(args, str(tmp_path / "sweep"))]
    with pytest.raises(UsageError, match=r"was launched in .* give the absolute path of --data_dir data"):
        launch(jobs, DummyLauncher(), LaunchOptions(output_dir=tmp_path / "sweep"))


def test_every_hyper_parameter_that_names_a_file_starts_in_the_launch_folder(tmp_path, monkeypatch):
    """Also in the part for one algorithm. Names of models and paths from a root or a home start nowhere."""
    (tmp_path / "sweep").mkdir()
    add_to_manifest(tmp_path / "sweep", {}, (), folder=tmp_path)
    monkeypatch.chdir(tmp_path.parent)

    def launched(**hparams):
        args = {"dataset": "Debug28", "algorithm": "ERM", "test_envs": [0], "hparams_seed": 0}
        job = Job(args | {"hparams": json.dumps(hparams)}, str(tmp_path / "sweep"))
        check_launched_here(tmp_path / "sweep", [job.train_args])

    for hparams, named in (
        ({"clip_model": "mine.json"}, "clip_model mine.json"),
        ({"CLIPZeroShot": {"clip_model": "mine.json"}}, "clip_model mine.json"),
        ({"clip_model": "mine.json", "weights_file": "w.pt"}, "clip_model mine.json, weights_file w.pt"),
    ):
        with pytest.raises(UsageError, match=f"or give the absolute path of {named}$"):
            launched(**hparams)
    launched(clip_model="tiny", weights_file="~/w.pt")
    launched(clip_model="/models/mine.json", weights_file="")


def test_reports_and_studies_find_the_data_of_runs_from_another_folder(home, elsewhere, monkeypatch):
    """Of an ensemble's weights, and of a study of trained models."""
    monkeypatch.chdir(home)
    settings = {"dataset": "photos", "hparams": HPARAMS, "steps": 1, "cache_dir": "none"}
    domainbed.train(**settings, output_dir="sweep/run")
    add_to_manifest(home / "sweep", {}, (), folder=home)
    monkeypatch.chdir(elsewhere)
    run = Path("../home/sweep/run")
    parts = ModelPredictions().of([run], 0)
    assert sum(len(part.labels) for part in parts) == 8
    loaded = load(run / "model.pkl", LoadOptions(cache_dir="none"))
    assert [len(environment) for environment in loaded.dataset.datasets] == [8, 8, 8]
    assert list(elsewhere.iterdir()) == []


def test_unfinished_runs_are_deleted_from_another_folder(ready, elsewhere, forked_script):
    sweep_dir = ready()
    done = forked_script("sweep", "delete_incomplete", *PHOTOS, "--output_dir", sweep_dir, cwd=elsewhere)
    assert done.returncode == 0, done.stderr
    assert runs_of(sweep_dir) == []

"""Sweeps that version 0.1.0 wrote on a folder of images, with models and a cache (tests/data/released)."""

import json
import re
from pathlib import Path

import pytest
import torch
from PIL import Image

from domainbed.datasets.image_folder import folder_dataset
from domainbed.errors import UsageError
from domainbed.inference.loading import load_models
from domainbed.inference.predict import predict_files
from domainbed.records.sweep_records import by_run
from domainbed.results.experiments import pool
from domainbed.results.loading import load_sweep
from domainbed.scripts import collect_results
from domainbed.sweep.flags import parse
from domainbed.sweep.manifest import read_manifest
from domainbed.sweep.planned_jobs import make_jobs
from domainbed.training.api import train
from domainbed.training.config import TrainConfig
from domainbed.training.model_file import load_model

RELEASED = Path(__file__).parents[1] / "data" / "released"
FLAGS = [
    *["--datasets", "photos", "--algorithms", "ERM", "AgrSum", "--n_hparams", "1", "--single_test_envs"],
    *["--steps", "4", "--checkpoint_freq", "2", "--checkpoint_every", "0", "--seed_scheme", "paired"],
    *["--hparams", '{"batch_size": 2, "input_size": 8, "featurizer": "mlp", "mlp_width": 2, "lr": 0.02}'],
    *["--cache_dir", "cache", "--skip_confirmation"],
]
SWEEPS = {
    "finished": [*FLAGS, "--n_trials", "2", "--output_dir", "finished"],
    "half_done": [*FLAGS, "--n_trials", "2", "--test_envs", "0", "--output_dir", "half_done"],
}


@pytest.fixture
def album(unpack_released):
    """The directory that holds both sweeps, the images and the cache; also the current one."""
    return unpack_released("album")


def runs_of(name):
    return [path for path in Path(name).iterdir() if path.is_dir()]


def records(run):
    return [json.loads(line) for line in (run / "results.jsonl").read_text(encoding="utf-8").splitlines()]


def pooled(name):
    """(algorithm, target) -> trials that a table averages over; nothing else may differ between the runs."""
    found = {}
    for method in pool(load_sweep(Path(name)).records):
        assert (method.conflict, method.repeated, method.copies, method.undeclared) == (None, (), 0, ())
        for trial, target in sorted(method.cells):
            found.setdefault((method.method, target), []).append(trial.seed)
    return found


def contents(folder):
    return {path: path.read_bytes() for path in sorted(folder.rglob("*")) if path.is_file()}


def test_the_tables_of_a_finished_sweep_are_the_same_when_its_folder_has_changed(album, capsys):
    Path("photos/photo").rename("photos/Aphoto")
    collect_results.main(["--input_dir", "finished"])
    assert capsys.readouterr().out == (RELEASED / "album_finished.txt").read_text(encoding="utf-8")


def test_the_numbers_of_a_half_done_sweep_are_the_same(album, capsys):
    collect_results.main(["--input_dir", "half_done"])
    lines = capsys.readouterr().out.splitlines()
    expected = (RELEASED / "album_half_done.txt").read_text(encoding="utf-8").splitlines()
    assert lines[:6] == expected[:6]
    assert "X" in lines[4]


@pytest.mark.parametrize("name", SWEEPS)
def test_the_jobs_have_the_same_names(album, name):
    jobs = make_jobs(parse(["launch", *SWEEPS[name]]))
    assert {job.name for job in jobs} == {run.name for run in runs_of(name)}


def test_a_half_done_sweep_goes_on_with_the_defaults_of_its_time(album, forked_script):
    """One of the images is truncated: 0.1.0 read what there is of it, and a new run stops."""
    cache = contents(Path("cache"))
    launched = forked_script("sweep", "launch", *SWEEPS["half_done"])
    assert launched.returncode == 0, launched.stdout + launched.stderr
    line = "An older version began this sweep. Its runs keep the defaults of then: --truncated keep."
    assert line in launched.stdout.splitlines()
    assert len(runs_of("half_done")) == 4
    for run in runs_of("half_done"):
        for record, expected in zip(records(run), records(Path("finished", run.name)), strict=True):
            assert record["step"] == expected["step"]
            assert record["data"]["checksum"] == expected["data"]["checksum"]
            assert record["data"]["version"] == expected["data"]["version"]
            assert record["loss"] == pytest.approx(expected["loss"], rel=1e-4), run
    # The resumed run is one run, and the old runs are pooled with the new ones.
    assert pooled("half_done") == {("ERM", 0): [0, 1], ("AgrSum", 0): [0, 1]}
    for _, of_run in by_run(load_sweep(Path("half_done")).records):
        assert [record["step"] for record in of_run] == [0, 2, 3]
    # The cache of 0.1.0 is of another format: a new one lies beside it.
    assert cache.items() < contents(Path("cache")).items()
    assert read_manifest(Path("half_done")).defaults is None


def resume_interrupted_run():
    """Resume the one run of `half_done` that has a checkpoint; its directory and the error of one line."""
    (checkpoint,) = Path("half_done").glob("*/checkpoint.pt")
    run = checkpoint.parent
    settings = json.loads((run / "run.json").read_text(encoding="utf-8"))["settings"]
    with pytest.raises(UsageError) as caught:
        train(TrainConfig(**settings, output_dir=str(run), truncated="keep", cache_dir="none", device="cpu"))
    return run, str(caught.value)


def test_a_run_whose_images_changed_does_not_resume_and_says_what_to_do(album):
    write_image(Path("photos/art/cat/0.png"), "RGB", padded_to=1000)
    run, error = resume_interrupted_run()
    expected = (
        rf"{run} holds a run on other data \(checksum was 159f8f8650257cdf, now \w{{16}}\); restore the "
        r"data, or start over, by --restart or in another --output_dir; reports do not mix such runs"
    )
    assert re.fullmatch(expected, error)


def test_a_run_whose_images_this_version_reads_otherwise_does_not_resume_and_says_what_to_do(album):
    path = Path("photos/art/cat/0.png")
    write_image(path, "RGBA", padded_to=path.stat().st_size)
    run, error = resume_interrupted_run()
    assert error == (
        f"{run} holds a run of a version that read these images in another way (data.version was 1, now 2); "
        "use that version, or start over, by --restart or in another --output_dir; reports do not mix such "
        "runs"
    )


def write_image(path, mode, padded_to):
    """A PNG of 4x4 pixels in a file of a given size."""
    Image.new(mode, (4, 4), (250, 0, 0, 99)[: len(mode)]).save(path)
    path.write_bytes(path.read_bytes().ljust(padded_to, b"\0"))


def test_a_finished_sweep_is_pooled_with_new_trials(album, forked_script):
    launched = forked_script(
        "sweep", "launch", *FLAGS, "--n_trials", "3", "--test_envs", "0", "--output_dir", "finished"
    )
    assert launched.returncode == 0, launched.stdout + launched.stderr
    trials = {0: [0, 1, 2], 1: [0, 1], 2: [0, 1]}
    assert pooled("finished") == {
        (algorithm, target): trials[target] for algorithm in ("ERM", "AgrSum") for target in trials
    }


def test_saved_models_predict_what_their_records_say(album, tmp_path_factory, monkeypatch):
    environments = folder_dataset(Path("photos"))(
        None, [0, 1, 2], {"data_augmentation": False, "input_size": 8}
    ).datasets
    runs = [run.absolute() for run in runs_of("finished")]
    images = {
        i: [
            torch.stack(each) if torch.is_tensor(each[0]) else torch.tensor(each)
            for each in zip(*e, strict=True)
        ]
        for i, e in enumerate(environments)
    }
    monkeypatch.chdir(tmp_path_factory.mktemp("elsewhere"))  # a model does not need its images
    assert len(runs) == 12
    for run in runs:
        record = records(run)[-1]
        (target,) = record["args"]["test_envs"]
        x, y = images[target]
        correct = (load_model(run / "model.pkl").predict(x).argmax(1) == y).sum().item()
        expected = sum(
            record[f"env{target}_{part}_acc"] * record["sizes"][f"env{target}_{part}"]
            for part in ("in", "out")
        )
        # Another machine may round one image to the other class.
        assert correct == pytest.approx(expected, abs=1.01), run


def test_saved_models_are_used_with_class_names_that_the_user_gives(album, caplog):
    run = next(run for run in runs_of("finished") if records(run)[-1]["args"]["test_envs"] == [0])
    with pytest.raises(UsageError) as caught:
        load_models([run])
    assert str(caught.value) == (
        f"model {run} was written by an older release, without the names of its 2 classes; give them in the "
        "order of the labels, or a folder that has a folder for each class, with --classes"
    )
    model = load_models([run], classes="photos/art")
    assert caplog.messages == [
        f"note: model {run} was written by an older release, without its preprocessing; images are prepared "
        "like those of a folder of images in this release, 8 pixels a side"
    ]
    ((correct, count),) = predict_files(model, ["photos/art"]).counts.correct.values()
    last = records(run)[-1]
    expected = sum(last[f"env0_{part}_acc"] * last["sizes"][f"env0_{part}"] for part in ("in", "out"))
    assert count == sum(last["sizes"][f"env0_{part}"] for part in ("in", "out"))
    assert correct == pytest.approx(expected, abs=1.01)

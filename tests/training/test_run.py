"""Complete runs, started by a function call and from the command line."""

import json
import multiprocessing
import signal
import sys

import numpy as np
import pytest
import torch
from PIL import Image

import domainbed
from domainbed.algorithms import REGISTRY
from domainbed.algorithms.erm import ERM
from domainbed.errors import RunError, UsageError
from domainbed.metrics import METRICS
from domainbed.training.api import launched_by_torchrun, train
from domainbed.training.config import TrainConfig
from domainbed.training.devices import choose_device
from domainbed.training.run import build
from domainbed.training.run_description import describe
from domainbed.training.stop_requests import AFTER_STEP_UNKEPT, Interrupted

QUICK = {"dataset": "Debug28", "steps": 5, "checkpoint_freq": 2, "hparams": {"batch_size": 8}}
CHANGING = ("step_time", "mem_gb")


def records_of(path):
    return [json.loads(line) for line in (path / "results.jsonl").read_text().splitlines()]


def without_times(records):
    return [{name: value for name, value in record.items() if name not in CHANGING} for record in records]


@pytest.fixture
def folder(tmp_path):
    """Three environments of noisy photographs: four classes of ten images, so that augmentation matters."""
    rng = np.random.default_rng(0)
    for environment in ("art", "photo", "sketch"):
        for label in ("cat", "dog"):
            directory = tmp_path / "folder" / environment / label
            directory.mkdir(parents=True)
            for i in range(6):
                pixels = rng.integers(0, 256, (40, 48, 3), dtype=np.uint8)
                Image.fromarray(pixels).save(directory / f"{i}.png")
    return tmp_path / "folder"


def test_train_returns_the_records(tmp_path, capsys):
    frame = domainbed.train(algorithm="AgrSum", output_dir=tmp_path / "run", **QUICK)
    assert frame["step"].tolist() == [0, 2, 4]
    assert frame["args.algorithm"].unique().tolist() == ["AgrSum"]
    assert {"loss", "agreement", "cosine", "removed", "env0_in_acc", "env2_out_acc"} <= set(frame.columns)
    printed = capsys.readouterr()
    assert printed.out == ""
    assert printed.err.splitlines()[0] == f"AgrSum on Debug28: files go to {tmp_path / 'run'}."
    assert "AgrSum:   0%" in printed.err
    assert (tmp_path / "run" / "err.txt").read_text() == ""
    again = domainbed.train(algorithm="AgrSum", output_dir=tmp_path / "run", **QUICK)
    assert again["loss"].tolist() == frame["loss"].tolist()
    assert "run already holds the finished run; restart=True runs it again.\n" in capsys.readouterr().err
    with pytest.raises(UsageError, match="unknown setting"):
        domainbed.train(algorithm="AgrSum", step=3)


class Stopping(ERM):
    """Is interrupted in its first update."""

    def update(self, minibatches, unlabeled=None):
        signal.raise_signal(signal.SIGINT)
        return super().update(minibatches, unlabeled)


def test_without_a_directory_a_run_says_that_it_keeps_nothing_also_when_interrupted(capfd, monkeypatch):
    monkeypatch.setitem(REGISTRY, "Stopping", Stopping)
    with pytest.raises(Interrupted, match=r"^Interrupted\. Nothing is kept, since the run"):
        domainbed.train(algorithm="Stopping", **QUICK)
    told = capfd.readouterr().err
    assert told.startswith("Stopping on Debug28: no files are kept, since no output_dir is given.\n")
    assert f"\n{AFTER_STEP_UNKEPT}\n" in told


def test_the_bar_of_a_command_is_shown_in_a_terminal_and_not_copied(tmp_path, terminal):
    shown = terminal()
    train(TrainConfig(**QUICK | {"hparams": '{"batch_size": 8}'}, output_dir=str(tmp_path)))
    assert "ERM:   0%" in shown.getvalue()
    assert (tmp_path / "err.txt").read_text() == ""


def entries_of(*parts):
    return {f"{part}_{name}" for part in parts for name in ("acc", *METRICS)}


def test_files_and_keys_of_a_run(tmp_path):
    domainbed.train(output_dir=tmp_path, test_envs=[1], **QUICK)
    files = {file.name for file in tmp_path.iterdir()}
    assert files == {"done", "err.txt", "model.pkl", "out.txt", "results.jsonl", "run.json"}
    text = (tmp_path / "results.jsonl").read_text()
    for line, record in zip(text.splitlines(), records_of(tmp_path), strict=True):
        assert line == json.dumps(record, sort_keys=True)
    record = records_of(tmp_path)[-1]
    assert record.keys() == {
        *("args", *entries_of("env0_out", "env1_in", "env1_out", "env2_out")),
        *("data", "epoch", "hparams", "loss", "mem_gb", "sizes", "step", "step_time", "weights"),
        *("environments", "initial_weights"),
    }
    assert {"nll", "ece", "balanced", "worst", "f1"} <= set(METRICS)
    assert record["environments"] == ["0", "1", "2"]
    assert record["epoch"] == 4 / (13 / 8)
    assert record["sizes"] == {f"env{i}_{kind}": n for i in range(3) for kind, n in (("in", 13), ("out", 3))}
    assert record["weights"] == {"name": "none", "sha256": ""}
    summary = json.loads((tmp_path / "run.json").read_text())
    assert summary["data"] == record["data"]
    assert summary["data"].keys() == {"checksum", "version"}
    assert summary["counts"].keys() == {"0", "1", "2"}
    assert sum(summary["counts"]["0"].values()) == 16
    out = (tmp_path / "out.txt").read_text()
    assert "\tenvironment 1 (1, target): 16 images" in out
    assert "in 13, out 3" in out


def test_two_runs_with_one_seed_write_the_same_records(tmp_path):
    for name in ("a", "b"):
        domainbed.train(algorithm="AgrRand", output_dir=tmp_path / name, **QUICK)
    first, second = (without_times(records_of(tmp_path / name)) for name in ("a", "b"))
    for record in (*first, *second):
        del record["args"]["output_dir"]
    assert first == second
    domainbed.train(algorithm="AgrRand", output_dir=tmp_path / "c", seed=1, **QUICK)
    assert records_of(tmp_path / "c")[-1]["loss"] != first[-1]["loss"]


def test_other_evaluated_parts_change_no_number(folder, tmp_path):
    """With augmented images, and weights chosen by the loss on validation parts."""
    settings = {
        "dataset": str(folder),
        "steps": 5,
        "checkpoint_freq": 1,
        "hparams": {
            **{"featurizer": "mnist_cnn", "batch_size": 4, "input_size": 32},
            **{"weight_averaging": "swad", "swad_n_s": 1, "swad_n_e": 2},
        },
        "holdout_fraction": 0.4,
        "test_envs": [1],
    }
    runs = {}
    for evaluate in ("all", "selection", "reported"):
        domainbed.train(output_dir=tmp_path / evaluate, evaluate=evaluate, **settings)
        runs[evaluate] = without_times(records_of(tmp_path / evaluate))
    for full, needed in zip(runs["all"], runs["selection"], strict=True):
        assert full.keys() - needed.keys() == entries_of("env0_in", "env2_in")
        assert {name: full[name] for name in needed if name != "args"} == {
            name: needed[name] for name in needed if name != "args"
        }
    for needed, few in zip(runs["selection"], runs["reported"], strict=True):
        assert needed.keys() - few.keys() == entries_of("env1_out")
        assert few["args"]["evaluate"] == "reported"
        assert needed | few | {"args": None} == needed | {"args": None}


AUGMENTED = {
    "cache_dir": "none",  # cached images need no workers
    "steps": 4,
    "checkpoint_freq": 2,
    "hparams": {"featurizer": "mnist_cnn", "batch_size": 4, "input_size": 32},
    "holdout_fraction": 0.4,
}


def test_workers_change_no_number(folder, tmp_path):
    """With augmented images, read by this process, one worker or two."""
    settings = {"dataset": str(folder)} | AUGMENTED
    runs = []
    for num_workers in (0, 1, 2):
        output_dir = tmp_path / str(num_workers)
        domainbed.train(output_dir=output_dir, num_workers=num_workers, **settings)
        runs.append(without_times(records_of(output_dir)))
        for record in runs[-1]:
            del record["args"]["output_dir"]
    assert runs[0] == runs[1] == runs[2]


def test_a_failed_run_ends_its_workers(folder, tmp_path):
    diverging = AUGMENTED | {"hparams": AUGMENTED["hparams"] | {"lr": 1e30}}
    with pytest.raises(RunError, match="diverged") as error:
        domainbed.train(dataset=str(folder), output_dir=tmp_path, num_workers=1, **diverging)
    assert not multiprocessing.active_children()
    assert error.tb is not None  # the traceback kept the loop alive until here


def test_methods_with_one_seed_share_initial_weights_splits_and_minibatches():
    runs = [
        build(TrainConfig(dataset="EmojiStyles", algorithm=name, seed=5, splits="70/10/20", steps=2))
        for name in ("ERM", "AgrSum", "AgrRand", "PCGrad", "Mixup", "MLDG", "IRM", "GroupDRO")
    ]
    for run in runs[1:]:
        for a, b in zip(
            runs[0].algorithm.network.parameters(), run.algorithm.network.parameters(), strict=True
        ):
            assert torch.equal(a, b)
        for (xa, ya), (xb, yb) in zip(runs[0].minibatches[1], run.minibatches[1], strict=True):
            assert torch.equal(xa, xb)
            assert torch.equal(ya, yb)


def test_deterministic_operations_are_set_for_each_run():
    build(TrainConfig(dataset="Debug28", steps=1, deterministic=True))
    assert torch.are_deterministic_algorithms_enabled()
    build(TrainConfig(dataset="Debug28", steps=1))
    assert not torch.are_deterministic_algorithms_enabled()


def test_training_improves_accuracy():
    frame = domainbed.train(
        dataset="EmojiStyles",
        algorithm="AgrSum",
        test_envs=[1],
        splits="70/10/20",
        steps=31,
    )
    assert frame["loss"].iloc[-1] < 1.7
    assert frame["env1_test_acc"].iloc[-1] > 0.3
    assert "env0_in_acc" not in frame


def test_domain_adaptation_gives_unlabeled_inputs_to_updates(tmp_path):
    settings = QUICK | {"task": "domain_adaptation", "uda_holdout_fraction": 0.5, "test_envs": [1]}
    domainbed.train(output_dir=tmp_path, **settings)
    record = records_of(tmp_path)[-1]
    assert record["uda_envs"] == [1]
    assert 0 <= record["env0_uda_acc"] <= 1
    run = build(TrainConfig(**settings | {"hparams": '{"batch_size": 4}'}))
    ((x, _),) = run.unlabeled[0]
    assert x.shape == (4, 3, 28, 28)


def test_a_small_environment_has_smaller_minibatches_and_this_is_printed():
    run = build(TrainConfig(dataset="Debug28", steps=1))
    assert [len(y) for _, y in run.minibatches[0]] == [13, 13]
    assert (
        "environment 1 has 13 training images, fewer than batch_size 64: its minibatches have 13"
        in "\n".join(describe(run))
    )


def test_class_balance_draws_classes_equally_often():
    run = build(TrainConfig(dataset="EmojiStyles", steps=60, hparams='{"class_balanced": true}'))
    labels = torch.cat([run.minibatches[step][0][1] for step in range(60)])
    counts = torch.bincount(labels).double() / len(labels)
    assert counts == pytest.approx([1 / 7] * 7, abs=0.02)


def test_a_loss_that_is_not_finite_ends_the_run_and_keeps_its_records(tmp_path):
    with pytest.raises(RunError, match=r"loss is nan at step .*; try a smaller lr|loss is inf at step"):
        domainbed.train(output_dir=tmp_path, **QUICK | {"hparams": {"lr": 1e30, "batch_size": 8}})
    assert records_of(tmp_path)[0]["step"] == 0
    assert "loss is" in json.loads((tmp_path / "failed.json").read_text())["error"]
    assert "loss is" in (tmp_path / "err.txt").read_text()
    assert not (tmp_path / "done").exists()


def test_a_run_without_checkpoint_starts_over_and_ends_with_the_same_records(tmp_path):
    domainbed.train(output_dir=tmp_path / "straight", **QUICK)
    domainbed.train(output_dir=tmp_path / "cut", **QUICK)
    (tmp_path / "cut" / "done").unlink()
    domainbed.train(output_dir=tmp_path / "cut", **QUICK)
    straight, cut = (without_times(records_of(tmp_path / name)) for name in ("straight", "cut"))
    assert [r["loss"] for r in straight] == [r["loss"] for r in cut]
    assert len(records_of(tmp_path / "cut" / "attempt-1")) == 3


def test_models_are_saved_at_every_checkpoint_or_never(tmp_path):
    domainbed.train(output_dir=tmp_path, save_model_every_checkpoint=True, **QUICK)
    assert sorted(file.name for file in tmp_path.glob("*.pkl")) == [
        "model.pkl",
        "model_step0.pkl",
        "model_step2.pkl",
        "model_step4.pkl",
    ]
    domainbed.train(output_dir=tmp_path / "none", skip_model_save=True, **QUICK)
    assert not list((tmp_path / "none").glob("*.pkl"))


def test_an_empty_training_part_is_refused():
    with pytest.raises(UsageError, match="environment 1 has no images in its 'in' part"):
        build(TrainConfig(dataset="Debug28", holdout_fraction=0.99, splits="1/1/98"))


def test_a_missing_device_is_refused():
    assert choose_device("cpu") == torch.device("cpu")
    for name in ("cuda:99", "nonsense", "meta"):
        with pytest.raises(UsageError, match=f"--device {name} cannot be used here"):
            choose_device(name)


def test_printed_rows_are_upstreams_and_a_summary_follows(script, tmp_path):
    flags = ("--dataset", "Debug28", "--steps", "2", "--hparams", '{"batch_size": 8}', "--output_dir", "run")
    flags += ("--evaluate", "all")
    done = script("train", *flags)
    assert done.returncode == 0, done.stderr
    assert done.stdout == (tmp_path / "run/out.txt").read_text()
    lines = done.stdout.splitlines()
    assert lines[0] == "Environment:"
    assert lines[1] == f"\tPython: {sys.version.split()[0]}"
    assert "\talgorithm: ERM" in lines
    assert "\tbatch_size: 8" in lines
    header = next(i for i, line in enumerate(lines) if line.startswith("env0_in_acc"))
    assert lines[header].split() == [
        *("env0_in_acc", "env0_out_acc", "env1_in_acc", "env1_out_acc", "env2_in_acc", "env2_out_acc"),
        *("epoch", "loss", "mem_gb", "step", "step_time"),
    ]
    rows, end = lines[header : header + 3], lines[header + 3 :]
    assert all(len(line) == 11 * (12 + 2) - 1 for line in rows)  # two spaces apart, and one at the end
    assert [float(value) for value in rows[2].split()][-2] == 1
    assert [line.partition(":")[0] for line in end] == [
        "Selected step",
        "Accuracy there on the target 0",
        "Files",
    ]
    again = script("train", *flags)
    assert again.stdout == "run already holds this run, finished. Use --restart to run it again.\n"


@pytest.mark.parametrize(
    ("variables", "expected"),
    [({}, False), ({"RANK": "0", "WORLD_SIZE": "1"}, False), ({"WORLD_SIZE": "2"}, False)]
    + [({"RANK": "1", "WORLD_SIZE": "2"}, True)],
)
def test_launched_by_torchrun_needs_at_least_two_processes(variables, expected, monkeypatch):
    for name in ("RANK", "WORLD_SIZE"):
        monkeypatch.delenv(name, raising=False)
    for name, value in variables.items():
        monkeypatch.setenv(name, value)
    assert launched_by_torchrun() is expected

"""Runs that several processes share have the numbers of a run in a single process."""

import importlib.util
import json
import os
import re
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
import torch

from domainbed import datasets
from domainbed.algorithms import ALGORITHMS, get_algorithm_class
from domainbed.hparams_registry import switches
from domainbed.training import checkpoint
from domainbed.training.claims import latest_claim
from domainbed.training.run_state import RunState, run_state

HERE = Path(__file__).parent
ABLE = (
    "ANDMask",
    "SANDMask",
    *("ERM", "AgrSum", "AgrRand", "GradDrop", "PCGrad", "GradVac", "CAGrad", "MGDA", "IMTLG", "NashMTL"),
    *("AlignedMTL", "UPGrad", "DualProj", "FairGrad", "GGAL", "FAMO", "STCH", "GENIE", "SDMGrad", "MoDo"),
)
TARGETS = {3: [0, 1], 4: [0]}
"""Number of source environments of Uneven -> target environments."""


def start(*program, ranks=2, **options):
    """Start a program under torchrun."""
    options = {"nproc-per-node": ranks, **options}
    torchrun = ["torch.distributed.run", "--standalone", *(f"--{k}={v}" for k, v in options.items())]
    return subprocess.Popen(
        [sys.executable, "-m", *torchrun, *program],
        env=os.environ | {"PYTHONPATH": str(HERE.parents[1]), "OMP_NUM_THREADS": "1"},
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
    )


def output_of(process):
    """Output of a process that must succeed."""
    output = process.communicate(timeout=300)[0]
    assert process.returncode == 0, output
    return output


def settings_of(algorithm, num_sources, **hparams):
    hparams = {"batch_size": 16, "featurizer": "small_cnn", **hparams}
    settings = {"dataset": "Uneven", "algorithm": algorithm, "test_envs": TARGETS[num_sources], "steps": 20}
    return settings | {"checkpoint_freq": 10, "hparams": json.dumps(hparams)}


def in_directories(folder, runs):
    """Settings of `runs` (name -> settings), each with the output directory `folder / name`."""
    folder.mkdir()
    return [settings | {"output_dir": str(folder / name)} for name, settings in runs.items()]


def start_shared(folder, runs, ranks=2):
    """Start torchrun, which trains all `runs`, one after the other."""
    listed = in_directories(folder, runs)
    (folder / "runs.json").write_text(json.dumps(listed))
    return start(str(HERE / "several_runs.py"), str(folder / "runs.json"), ranks=ranks)


def train_alone(folder, runs):
    """Train all `runs` in this process."""
    spec = importlib.util.spec_from_file_location("several_runs", HERE / "several_runs.py")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(datasets, "Uneven", module.Uneven, raising=False)
        for settings in in_directories(folder, runs):
            module.train_run(settings)


def assert_equal_runs(path, single, relative):
    """Weights are equal up to a relative difference, and records up to that or 1e-6.

    Records have values of about 1, and some, such as cosines, may be nearly 0. Statistics are summed in
    float32 in every run. One more component with equal signs would change the agreement by 1e-5.
    """
    expected, got = (
        torch.load(each / "model.pkl", weights_only=True)["model_dict"] for each in (single, path)
    )
    assert expected.keys() == got.keys()
    difference = sum((expected[name] - got[name]).double().square().sum() for name in expected)
    assert (
        difference.sqrt() <= relative * sum(each.double().square().sum() for each in expected.values()).sqrt()
    )
    relative = max(relative, 1e-6)
    pairs = zip(*((each / "results.jsonl").read_text().splitlines() for each in (single, path)), strict=True)
    for one, other in (map(json.loads, pair) for pair in pairs):
        values = {name: value for name, value in one.items() if isinstance(value, int | float)}
        for name in values.keys() - {"step_time", "mem_gb"}:
            assert other[name] == pytest.approx(values[name], rel=relative, abs=relative), name
        assert one.keys() == other.keys()


EQUAL = {
    "ERM-3": settings_of("ERM", 3),
    "AgrSum-4": settings_of("AgrSum", 4),
    "PCGrad-3": settings_of("PCGrad", 3),
    "MGDA-4": settings_of("MGDA", 4),
    "tensors": settings_of("AgrRand", 3, sigma="tensor"),
    "masks": settings_of("SANDMask", 3),
    "joint": settings_of("AgrSum", 4, passes="joint"),
    # Separate passes in both, because the sign of a gradient near 0 depends on the order of sums.
    "dropout": settings_of(
        "AgrSum", 4, featurizer="mlp", mlp_dropout=0.5, shared_dropout=True, passes="separate"
    ),
}
MORE = {
    "ERM-4": settings_of("ERM", 4),
    "AgrSum-3": settings_of("AgrSum", 3),
    "AgrRand-3": settings_of("AgrRand", 3),
    "AgrRand-4": settings_of("AgrRand", 4),
    "PCGrad-4": settings_of("PCGrad", 4),
    "MGDA-3": settings_of("MGDA", 3),
    "losses": settings_of("FAMO", 3),
    "parts": settings_of("SDMGrad", 3),
    "joint products": settings_of("PCGrad", 3, passes="joint"),
}
# In float32 the signs of a few components depend on the order of sums, and so on the number of processes. In
# float64 none does, so tight bounds hold on every processor.
EQUAL, MORE = (
    {name: settings | {"float64": True} for name, settings in runs.items()} for runs in (EQUAL, MORE)
)
REFUSED = {
    "unable": settings_of("Fish", 3),
    "norm": settings_of("AgrSum", 3, featurizer="wide_resnet"),
    "few": settings_of("AgrSum", 3) | {"test_envs": [0, 1, 2, 3]},
    "misspelt": settings_of("AgrSum", 3, leer=1),
}
TRAIN = ("-m", "domainbed.scripts.train", "--evaluate=selection")
RESUMED = {
    **{"dataset": "EmojiStyles", "algorithm": "AgrRand", "steps": 200, "checkpoint_freq": 50},
    **{"hparams": '{"batch_size": 4}', "evaluate": "selection"},
}


@pytest.fixture(scope="module")
def runs(tmp_path_factory):
    """Folder with runs of the same settings by one process (in `one`) and by two (in `two`)."""
    folder = tmp_path_factory.mktemp("runs")
    two = start_shared(folder / "two", EQUAL | REFUSED)
    train_alone(folder / "one", EQUAL)
    output_of(two)
    return folder


@pytest.fixture(scope="module")
def straight_by_two(tmp_path_factory):
    """A run that two processes share, and that nothing interrupts."""
    folder = tmp_path_factory.mktemp("straight_by_two") / "runs"
    output_of(start_shared(folder, {"straight": RESUMED}))
    return folder / "straight"


@pytest.mark.parametrize("name", EQUAL)
def test_two_processes_equal_one(runs, name):
    assert_equal_runs(runs / "two" / name, runs / "one" / name, 1e-9)


@pytest.mark.slow
def test_two_processes_equal_one_in_more_settings(tmp_path):
    two = start_shared(tmp_path / "two", MORE)
    train_alone(tmp_path / "one", MORE)
    output_of(two)
    for name in MORE:
        assert_equal_runs(tmp_path / "two" / name, tmp_path / "one" / name, 1e-9)


@pytest.mark.slow
@pytest.mark.parametrize("ranks", [2, 3])
def test_every_shareable_algorithm_on_real_images(tmp_path, ranks):
    settings = {"dataset": "EmojiStyles", "steps": 20, "checkpoint_freq": 10}
    every = {}
    for name in ABLE:
        # Gradients on flat backgrounds are 0 except for rounding, so their signs depend on the order of sums.
        passes = {"passes": "separate"} if "passes" in switches(name) else {}
        every[name] = settings | {"algorithm": name, "hparams": json.dumps({"batch_size": 16} | passes)}
    shared = start_shared(tmp_path / "shared", every, ranks)
    train_alone(tmp_path / "one", every)
    output_of(shared)
    for name in every:
        # FAMO's Adam over the weights makes steps of one length, also of changes that are rounding.
        relative = 1e-4 if name == "FAMO" else 1e-5
        assert_equal_runs(tmp_path / "shared" / name, tmp_path / "one" / name, relative)


@pytest.mark.parametrize(
    ("name", "reason"),
    [
        ("unable", "UsageError: Fish runs in one process only.* one of ERM, .*AgrSum"),
        ("norm", "UsageError: AgrSum on Uneven trains a batch norm"),
        ("few", "UsageError: 2 processes for 1 source environments of Uneven"),
        ("misspelt", "UsageError: .*leer"),
    ],
)
def test_unshareable_runs_are_refused_by_all_ranks(runs, name, reason):
    assert re.match(reason, (runs / "two" / f"{name}-refused.txt").read_text())
    assert not (runs / "two" / name / "results.jsonl").exists()


def test_shareable_algorithms():
    assert sorted(ABLE) == sorted(name for name in ALGORITHMS if get_algorithm_class(name).DISTRIBUTED)


def wait_for_updates(torchrun, path, number, claim=1):
    """Wait until a process with claim number `claim` has a checkpoint of at least `number` updates."""
    while True:
        content = checkpoint.load(path) if latest_claim(path)[0] >= claim else None
        if content is not None and content["updates"] >= number:
            return content["updates"]
        assert torchrun.poll() is None, torchrun.communicate()[0]
        time.sleep(0.01)


def workers_of(torchrun, path):
    """Process ids of rank 0 and rank 1."""
    children = Path(f"/proc/{torchrun.pid}/task/{torchrun.pid}/children").read_text().split()
    first = latest_claim(path)[1]["pid"]
    (second,) = {int(child) for child in children} - {first}
    return first, second


@pytest.mark.slow
def test_resumes_after_a_kill_and_stops_together_after_a_signal(
    straight_by_two, flags, tmp_path, assert_same
):
    path = tmp_path / "run"
    torchrun = start(*TRAIN, *flags(path), **{"max-restarts": 2})
    done = wait_for_updates(torchrun, path, 20)
    os.kill(workers_of(torchrun, path)[1], signal.SIGKILL)
    # torchrun restarts both.
    done = wait_for_updates(torchrun, path, done + 20, claim=2)
    os.kill(workers_of(torchrun, path)[1], signal.SIGTERM)
    output = output_of(torchrun)
    assert output.count("Another process of the run was asked to stop.") == 1
    first, second = map(int, re.findall(r"Resumes after (\d+) of 200 updates", output))
    assert 20 <= first < done <= second
    assert_same(path, straight_by_two)


@pytest.mark.slow
def test_resumes_after_rank_0_was_killed_and_after_signals_to_all_or_one(
    straight_by_two, flags, tmp_path, assert_same
):
    path = tmp_path / "run"
    program = [*TRAIN, *flags(path)]
    torchrun = start(*program)
    done = wait_for_updates(torchrun, path, 20)
    os.kill(workers_of(torchrun, path)[0], signal.SIGKILL)
    torchrun.communicate(timeout=100)
    assert torchrun.returncode == 1
    assert run_state(path) is RunState.INTERRUPTED
    for number, claim in ((signal.SIGTERM, 2), (signal.SIGUSR1, 3)):
        torchrun = start(*program)
        done = wait_for_updates(torchrun, path, done + 20, claim)
        rank_1 = workers_of(torchrun, path)[1]
        # torchrun forwards SIGTERM to all ranks. The other signal goes to one rank only.
        os.kill(torchrun.pid if number == signal.SIGTERM else rank_1, number)
        output = torchrun.communicate(timeout=100)[0]
        assert run_state(path) is RunState.PREEMPTED
    assert re.search(r"exitcode *: 3", output), output
    output_of(start(*program))
    assert_same(path, straight_by_two)


@pytest.mark.slow
def test_only_one_process_reports_a_refused_run(flags, tmp_path):
    program = [*TRAIN, *flags(tmp_path / "run"), "--algorithm=Fish"]
    output = start(*program).communicate(timeout=100)[0]
    assert output.count("error: Fish runs in one process only") == 1
    assert re.search(r"exitcode *: 2", output), output
    assert "Traceback" not in output.partition("error: Fish")[0]
    assert not (tmp_path / "run").exists()

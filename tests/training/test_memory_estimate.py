"""What an update takes of memory: the estimate before it, and the error after it."""

import json
import resource
from pathlib import Path

import pytest
import torch
from torch.multiprocessing.reductions import StorageWeakRef
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

from domainbed.algorithms import REGISTRY
from domainbed.algorithms.erm import ERM
from domainbed.errors import RunError
from domainbed.scripts import train as train_script
from domainbed.training import loop as loops
from domainbed.training.config_checks import from_settings
from domainbed.training.memory_estimate import MemoryEstimate, estimate_memory
from domainbed.training.out_of_memory import is_out_of_memory
from domainbed.training.run import build
from domainbed.training.run_state import read_json

MB = 10**6


def run_of(tmp_path, algorithm, batch_size, **hparams):
    settings = {"dataset": "EmojiStyles", "algorithm": algorithm, "output_dir": tmp_path}
    return build(from_settings(settings | {"hparams": {"batch_size": batch_size, **hparams}}))


class LargestAtOnce(TorchDispatchMode):
    """The greatest number of bytes that storages had at once."""

    def __init__(self, run):
        super().__init__()
        self.storages = {}
        self.peak = 0
        tree = (*run.algorithm.parameters(), *run.algorithm.buffers())
        self._add([tensor.data for tensor in tree])

    def __torch_dispatch__(self, function, types, args=(), kwargs=None):
        result = function(*args, **(kwargs or {}))
        self._add([leaf for leaf in tree_leaves(result) if isinstance(leaf, torch.Tensor)])
        return result

    def _add(self, tensors):
        for tensor in tensors:
            storage = tensor.untyped_storage()
            self.storages[storage._cdata] = (StorageWeakRef(storage), storage.nbytes())
        self.storages = {key: each for key, each in self.storages.items() if not each[0].expired()}
        self.peak = max(self.peak, sum(size for _, size in self.storages.values()))


@pytest.mark.parametrize(
    ("algorithm", "featurizer", "batch_size"),
    [
        ("ERM", "mnist_cnn", 2),
        ("AgrSum", "mnist_cnn", 2),  # a pass for each environment
        ("AgrSum", "mlp", 2),  # one joint pass
        ("PCGrad", "small_cnn", 8),
        ("SAM", "small_cnn", 8),
    ],
)
def test_the_estimate_is_close_to_the_tensors_of_two_updates(tmp_path, algorithm, featurizer, batch_size):
    run = run_of(tmp_path, algorithm, batch_size, featurizer=featurizer)
    estimate = estimate_memory(run)
    run.algorithm.train()
    with LargestAtOnce(run) as used:
        for step in range(2):
            run.algorithm.update([(x.clone(), y.clone()) for x, y in run.minibatches[step]])
    assert estimate.total == pytest.approx(used.peak, rel=0.3)


def test_the_estimate_changes_no_number(tmp_path, identical):
    runs = [run_of(tmp_path, "ERM", 2, featurizer="resnet18", pretrained=False) for _ in range(2)]
    states = []
    for number, run in enumerate(runs):
        torch.manual_seed(3)
        if number:
            assert estimate_memory(run) is not None
        states.append({"model": run.algorithm.training_state(), "draws": torch.rand(2)})
    assert any("running_mean" in name for name in states[0]["model"]["model"])
    assert identical(*states)


def test_frozen_stages_keep_nothing(tmp_path):
    network = {"featurizer": "resnet18", "pretrained": False}
    whole, part = (
        estimate_memory(run_of(tmp_path, "ERM", 2, **network, **more)) for more in ({}, {"freeze": "layer4"})
    )
    assert part.of_parameters < whole.of_parameters / 2
    assert part.of_samples < whole.of_samples / 2


def test_what_fits_is_the_largest_batch_of_the_formula():
    estimate = MemoryEstimate(of_parameters=100 * MB, of_samples=3 * MB, minibatches=3, batch_size=32)
    assert estimate.total == 196 * MB
    assert estimate.largest_batch_size(196 * MB / 0.8) == 32
    assert estimate.largest_batch_size(195 * MB / 0.8) == 31
    assert estimate.largest_batch_size(99 * MB / 0.8) == 0
    known = "Memory of an update, estimated: 196 MB, of which 100 MB for weights, gradients and optimizer, "
    assert estimate.line(0) == f"{known}the rest for 3 x 32 samples."
    assert estimate.line(1000 * MB) == f"{known}the rest for 3 x 32 samples; available: 1 GB."
    assert estimate.line(163 * MB).endswith("; available: 163 MB; by this estimate, batch_size 10 fits.")
    assert estimate.remedy(1000 * MB) == estimate.remedy(0) == "try batch_size 16"
    assert "no batch_size fits: choose a smaller featurizer" in estimate.remedy(50 * MB)


def train(tmp_path, *flags, hparams):
    words = [
        "--dataset",
        "EmojiStyles",
        "--output_dir",
        str(tmp_path / "run"),
        "--hparams",
        json.dumps(hparams),
    ]
    return train_script.main([*words, *flags])


def test_a_run_prints_the_estimate_before_its_first_record(tmp_path, capsys):
    assert train(tmp_path, "--steps", "1", hparams={"batch_size": 2}) == 0
    out = capsys.readouterr().out
    assert out.index("Data:") < out.index("Memory of an update, estimated: ") < out.index("env0_in_acc")
    assert "the rest for 3 x 2 samples; available: " in out


class OutOfMemory(ERM):
    """Raises `error` in its first update."""

    def update(self, minibatches, unlabeled=None):
        raise self.error


class Unpredictable(ERM):
    """Has no memory to evaluate."""

    def predict(self, x):
        if not self.training:
            raise torch.OutOfMemoryError(
                "CUDA out of memory. Tried to allocate 2.50 GiB. GPU 0 has a total of 8 GiB"
            )
        return super().predict(x)


OF_CPU = "[enforce fail at alloc_cpu.cpp:121] . DefaultCPUAllocator: can't allocate memory: you tried to "
ERRORS = {
    "of CUDA": (
        torch.OutOfMemoryError(
            "CUDA out of memory. Tried to allocate 20.00 MiB. GPU 0 has a total capacity of 8 GiB"
        ),
        "(tried to allocate 20.00 MiB)",
    ),
    "of the CPU": (
        RuntimeError(f"{OF_CPU}allocate 3200000000 bytes. Error code 12"),
        "(tried to allocate 3.2 GB)",
    ),
    "of cuDNN": (RuntimeError("cuDNN error: CUDNN_STATUS_ALLOC_FAILED"), ""),
    "of Python": (MemoryError(), ""),
}


@pytest.mark.parametrize("name", ERRORS)
def test_an_update_without_memory_is_an_error_with_a_smaller_batch_size(name, tmp_path, monkeypatch):
    error, reason = ERRORS[name]
    monkeypatch.setitem(REGISTRY, "OutOfMemory", OutOfMemory)
    monkeypatch.setattr(OutOfMemory, "error", error, raising=False)
    with pytest.raises(RunError) as info:
        train(tmp_path, "--algorithm", "OutOfMemory", hparams={"batch_size": 8})
    expected = f"out of memory in an update {reason}".rstrip()
    assert str(info.value) == f"{expected}; try batch_size 4, or run fewer processes at a time"
    assert info.value.exit_status == 1
    assert read_json(tmp_path / "run" / "failed.json")["error"] == str(info.value)


def test_an_evaluation_without_memory_does_not_blame_the_batch_size(tmp_path, monkeypatch):
    monkeypatch.setitem(REGISTRY, "Unpredictable", Unpredictable)
    with pytest.raises(
        RunError, match=r"^out of memory in an evaluation \(tried to allocate 2.50 GiB\); it computes 256"
    ):
        train(tmp_path, "--algorithm", "Unpredictable", hparams={"batch_size": 2})


def test_other_errors_of_a_library_are_not_for_lack_of_memory(tmp_path, monkeypatch):
    assert not is_out_of_memory(RuntimeError("mat1 and mat2 shapes cannot be multiplied"))
    monkeypatch.setitem(REGISTRY, "OutOfMemory", OutOfMemory)
    monkeypatch.setattr(OutOfMemory, "error", RuntimeError("not today"), raising=False)
    with pytest.raises(RuntimeError, match="not today"):
        train(tmp_path, "--algorithm", "OutOfMemory", hparams={"batch_size": 2})


def limited(megabytes, *words):
    """`train` where the process may map so many more megabytes once the run is built."""
    original = loops.Loop.print_memory

    def limit(loop):
        pages = int(Path("/proc/self/statm").read_text().split()[0])
        most = pages * resource.getpagesize() + megabytes * MB
        resource.setrlimit(resource.RLIMIT_AS, (most, resource.RLIM_INFINITY))
        original(loop)

    loops.Loop.print_memory = limit
    return train_script.main(list(words))


@pytest.mark.slow
def test_the_batch_size_that_a_run_out_of_memory_names_fits(forked, tmp_path):
    network = {"featurizer": "resnet18", "pretrained": False}

    def run(batch_size, name):
        hparams = json.dumps(network | {"batch_size": batch_size})
        words = ("--dataset", "EmojiStyles", "--steps", "2", "--hparams", hparams)
        return forked(lambda: limited(950, *words, "--output_dir", str(tmp_path / name)))

    failed = run(160, "large")
    error = read_json(tmp_path / "large" / "failed.json")["error"]
    assert "out of memory in an update (tried to allocate" in error
    assert "by this estimate, batch_size" in failed.stderr  # before the first update
    named = int(error.partition("by this estimate, batch_size ")[2].split()[0])
    assert 20 < named < 160
    done = run(named, "fitting")
    assert (tmp_path / "fitting" / "done").exists(), done.stderr

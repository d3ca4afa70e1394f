"""On a simulated accelerator, every algorithm and whole runs have the CPU's numbers, and hardly wait."""

import json
import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from domainbed.algorithms import ALGORITHMS, get_algorithm_class
from domainbed.algorithms.environment_gradients import ComponentwiseMethod

HERE = Path(__file__).parent
if not hasattr(torch.utils.backend_registration, "_setup_privateuseone_for_python_backend"):
    pytest.skip("this torch has no device that Python can simulate", allow_module_level=True)

MLP = {"featurizer": "mlp", "mlp_dropout": 0.5, "shared_dropout": True}
VARIANTS = {
    "AgrSum, joint pass": ("AgrSum", {"passes": "joint"}),
    "AgrRand, noise of each tensor": ("AgrRand", {"sigma": "tensor"}),
    "PCGrad, joint pass": ("PCGrad", {"passes": "joint"}),
    "AgrSum, dropout of each environment": ("AgrSum", MLP | {"passes": "joint"}),
    "SelfReg, projection": ("SelfReg", {"selfreg_train_projection": True}),
    "STCH, after its warm-up": ("STCH", {"stch_warmup": 1}),
    "GGA, searching": ("GGA", {"gga_start": 0, "gga_trials": 3, "gga_radius": 1e-3}),
}
FEW = ("ERM", "AgrSum", "PCGrad")


class Cases:
    """Runs cases in one process."""

    def __init__(self, folder):
        self.folder = folder

    def __call__(self, cases):
        """What is found for each of `cases`, in order."""
        (self.folder / "cases.json").write_text(json.dumps(cases), encoding="utf-8")
        done = subprocess.run(
            [sys.executable, str(HERE / "program.py"), str(self.folder / "cases.json")],
            env=os.environ | {"OMP_NUM_THREADS": "1", "PYTHONPATH": f"{HERE}{os.pathsep}{HERE.parents[1]}"},
            capture_output=True,
            text=True,
        )
        lines = [line for line in done.stdout.splitlines() if line.startswith("FOUND ")]
        assert len(lines) == len(cases), done.stderr
        return [json.loads(line.removeprefix("FOUND ")) for line in lines]


@pytest.fixture(scope="module")
def found(tmp_path_factory):
    """What is found for the device itself and for a few algorithms."""
    names = ["the_device", "generators", "mixing_algorithm"]
    cases = [[name, []] for name in names] + [["algorithm", [name, {}]] for name in FEW]
    return dict(zip([*names, *FEW], Cases(tmp_path_factory.mktemp("few"))(cases), strict=True))


def test_the_device_refuses_to_meet_the_cpu_and_counts_what_the_host_reads(found):
    of_device = found["the_device"]
    reads = of_device.pop("reads")
    assert reads.pop("nothing") == 0
    assert {name: min(count, 1) for name, count in reads.items()} == dict.fromkeys(reads, 1)
    assert len(reads) == 10
    assert of_device == {"allowed": ["sim"] * 3, "in place": True, "parameter": True}


def test_an_algorithm_that_mixes_devices_is_noticed(found):
    assert found["mixing_algorithm"]["error"].startswith(
        "MixedDevices: add has tensors of sim and one of the CPU"
    )


def test_generators_of_an_accelerator_are_restored(found):
    assert found["generators"] == {"restored": True, "own": True}


def assert_like_the_cpu(name, result):
    """No mixed devices, numbers equal to rounding, at most one read in an update, none of sign methods."""
    assert "error" not in result, result
    assert result["weights"] < 1e-5
    assert result["logits"] < 1e-3
    assert result["losses"] < 1e-4
    assert result["metrics"]
    method = get_algorithm_class(name)
    most = 0 if name == "ERM" or issubclass(method, ComponentwiseMethod) else 1
    assert all(len(reads) <= most for reads in result["reads"]), result["reads"]


@pytest.mark.parametrize("name", FEW)
def test_an_update_on_an_accelerator_equals_the_cpus_and_hardly_waits(found, name):
    assert_like_the_cpu(name, found[name])


@pytest.fixture(scope="module")
def of_all(tmp_path_factory):
    """What is found for all algorithms, by precision, and for some with other hyper-parameters."""
    names = [name for name in ALGORITHMS if name not in FEW]
    cases = [["algorithm", [name, {}]] for name in names]
    cases += [["algorithm", list(variant)] for variant in VARIANTS.values()]
    cases += [["algorithm", [name, {}, "bf16"]] for name in ALGORITHMS]
    keys = [*names, *VARIANTS, *(f"{name} bf16" for name in ALGORITHMS)]
    return dict(zip(keys, Cases(tmp_path_factory.mktemp("all"))(cases), strict=True))


@pytest.mark.slow
@pytest.mark.parametrize("name", [name for name in ALGORITHMS if name not in FEW])
def test_every_update_on_an_accelerator_equals_the_cpus_and_hardly_waits(of_all, name):
    assert_like_the_cpu(name, of_all[name])


@pytest.mark.slow
@pytest.mark.parametrize("variant", VARIANTS)
def test_variants_on_an_accelerator_equal_the_cpus_and_hardly_wait(of_all, variant):
    assert_like_the_cpu(VARIANTS[variant][0], of_all[variant])


@pytest.mark.slow
@pytest.mark.parametrize("name", ALGORITHMS)
def test_an_update_under_autocast_whose_norms_stay_float32(of_all, name):
    """On CUDA group norms and losses are float32 under autocast, on the CPU bfloat16."""
    result = of_all[f"{name} bf16"]
    assert "error" not in result, result
    assert result["weights"] < 0.05
    assert all(len(reads) <= 1 for reads in result["reads"]), result["reads"]


@pytest.fixture(scope="module")
def of_runs(tmp_path_factory):
    """What is found for whole runs."""
    folder = tmp_path_factory.mktemp("runs")
    rng = np.random.default_rng(0)
    for environment in ("art", "photo", "sketch"):
        for label in ("cat", "dog"):
            (folder / "images" / environment / label).mkdir(parents=True)
            for i in range(12):
                pixels = rng.integers(0, 256, (48, 40, 3), dtype=np.uint8)
                Image.fromarray(pixels).save(folder / "images" / environment / label / f"{i}.png")
    steps = {"steps": 6, "checkpoint_freq": 3}
    hparams = {"batch_size": 8}
    debug = {"dataset": "Debug28", **steps}
    images = {"dataset": str(folder / "images"), "cache_dir": str(folder / "cache"), **steps}
    small = hparams | {"input_size": 32, "featurizer": "small_cnn"}
    plain = small | {"data_augmentation": False}
    frozen = {"featurizer": "timm:test_resnet", "pretrained": False, "freeze": "layer2", "layout": "plain"}
    torch.manual_seed(0)
    torch.save(pytest.importorskip("timm").create_model("test_resnet").state_dict(), folder / "weights.pth")
    outputs = frozen | {"pretrained": True, "weights_file": str(folder / "weights.pth")}
    runs = {
        "evaluation": {"dataset": "EmojiStyles", "algorithm": "AgrSum", "evaluate": "selection", **steps}
        | {"hparams": hparams},
        "swad": {"algorithm": "PCGrad", "hparams": hparams | {"weight_averaging": "swad"}, **debug},
        "average": {"algorithm": "ERM", "hparams": hparams | {"weight_averaging": "sma"}, **debug},
        "channels_last": {"algorithm": "AgrSum", "channels_last": True, **debug}
        | {"hparams": hparams | {"featurizer": "small_cnn"}},
        "adaptation": {"algorithm": "DANN", "task": "domain_adaptation", "uda_holdout_fraction": 0.5, **debug}
        | {"hparams": hparams},
        "cache": {"algorithm": "ERM", "hparams": plain, **images},
        "frozen": {"algorithm": "AgrSum", "hparams": plain | frozen, **images},
        "frozen outputs": {"algorithm": "AgrSum", "hparams": plain | outputs, "grouping": "pooled", **images},
        "augmentation": {"algorithm": "ERM", "hparams": small, **images},
        "files": {"algorithm": "AgrSum", "hparams": small, "num_workers": 1, **images, "cache_dir": "none"},
    }
    cases = [["run", [str(folder / name), settings]] for name, settings in runs.items()]
    cases.append(["resume", [str(folder / "resume"), {**debug, "steps": 12, "hparams": {"batch_size": 8}}]])
    return dict(zip([*runs, "resume"], Cases(folder)(cases), strict=True))


@pytest.mark.slow
@pytest.mark.parametrize(
    "name",
    [
        "evaluation",
        "swad",
        "average",
        "channels_last",
        "adaptation",
        "cache",
        "frozen",
        "frozen outputs",
        "files",
    ],
)
def test_a_run_on_an_accelerator_equals_the_cpus(of_runs, name):
    result = of_runs[name]
    assert "error" not in result, result
    assert result["keys"]
    assert result["weights"]
    assert result["records"] < 1e-5  # cosines are summed in another precision


@pytest.mark.slow
def test_augmentation_on_an_accelerator_differs_from_the_cpus_by_rounding(of_runs):
    result = of_runs["augmentation"]
    assert "error" not in result, result
    assert result["keys"]
    assert result["records"] < 0.1


@pytest.mark.slow
def test_a_run_on_an_accelerator_resumes_with_the_numbers_of_its_generator(of_runs):
    result = of_runs["resume"]
    assert "error" not in result, result
    assert result["stopped"].startswith("Stopped by SIGTERM.")
    assert result["records"] == 0
    assert result["weights"]

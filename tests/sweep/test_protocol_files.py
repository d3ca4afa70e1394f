"""The sweep files of published protocols: each preset has the runs that its paper asks for."""

from collections import Counter
from pathlib import Path

import pytest

from domainbed.sweep.flags import parse
from domainbed.sweep.launch_checks import check_jobs
from domainbed.sweep.planned_jobs import make_jobs
from domainbed.training.config import TrainConfig
from domainbed.training.run_hparams import resolved_hparams

SWEEPS = Path(__file__).parents[2] / "sweeps"
NICO = ("autumn", "dim", "grass", "outdoor", "rock", "water")


@pytest.fixture
def sweep_of(data_dir):
    """`sweep_of(name, *flags)`: the flags and the arguments of a sweep file's runs, which are checked."""

    def read(name, *flags):
        # For runs elsewhere: this machine need not have the weights.
        flags = ("--data_dir", data_dir, "--command_launcher", "dummy", *flags)
        args = parse(["launch", "--config", str(SWEEPS / name), *map(str, flags)])
        jobs = make_jobs(args)
        check_jobs(args, jobs)
        return args, [job.train_args for job in jobs]

    return read


@pytest.fixture
def nico(tmp_path):
    """A folder with the environments of NICO++."""
    for environment in NICO:
        for label in ("bear", "cat"):
            (tmp_path / "nico" / environment / label).mkdir(parents=True)
            (tmp_path / "nico" / environment / label / "0.png").touch()
    return tmp_path / "nico"


@pytest.mark.parametrize("preset", ["moco_v2", pytest.param("moco_v3", marks=pytest.mark.slow), "scratch"])
def test_the_cvpr_2024_protocol_holds_out_pairs_of_domainnet(preset, sweep_of):
    args, runs = sweep_of("cvpr2024_protocol.toml", "--preset", preset)
    held_out = Counter(tuple(run["test_envs"]) for run in runs)
    assert held_out == dict.fromkeys([(0, 1), (2, 3), (4, 5)], 9 * 10)
    assert {run["hparams_seed"] for run in runs} == {*range(1, 11)}
    assert args.selection == ["iid_pooled"]
    config = TrainConfig(**runs[0])
    assert (config.dataset_class().ENVIRONMENTS[0], config.dataset_class().ENVIRONMENTS[5]) == (
        "clip",
        "sketch",
    )
    assert resolved_hparams(config)["batch_size"] == 32
    assert (resolved_hparams(config).get("pretrained") is False) == (preset == "scratch")


def test_the_cvpr_2024_protocol_holds_out_pairs_of_nico(nico, sweep_of):
    _, runs = sweep_of("cvpr2024_protocol.toml", "--preset", "nico", "--datasets", nico)
    names = TrainConfig(**runs[0]).dataset_class().ENVIRONMENTS
    assert {tuple(names[i] for i in run["test_envs"]) for run in runs} == {
        ("autumn", "rock"),
        ("dim", "grass"),
        ("outdoor", "water"),
    }
    assert {(run["steps"], run["checkpoint_freq"]) for run in runs} == {(10000, 600)}


def test_the_cvpr_2024_protocol_holds_out_one_environment_of_smaller_datasets(sweep_of):
    _, runs = sweep_of("cvpr2024_protocol.toml", "--preset", "one_target")
    assert {len(run["test_envs"]) for run in runs} == {1}
    assert Counter(run["dataset"] for run in runs) == dict.fromkeys(
        ["PACS", "VLCS", "OfficeHome", "TerraIncognita"], 4 * 9 * 10
    )


def test_domainbeds_protocol_has_upstreams_runs(sweep_of):
    asked = parse(["launch", "--config", str(SWEEPS / "domainbed_protocol.toml")])
    assert (asked.n_trials, asked.n_hparams, len(asked.algorithms)) == (3, 20, 14)
    assert asked.selection == ["iid", "loo", "oracle"]
    few = ("--algorithms", "ERM", "RSC", "--n_trials", 1, "--n_hparams", 1)
    # 3, 6, 4, 4, 4, 4 and 6 environments: each alone, and each pair.
    assert len(sweep_of("domainbed_protocol.toml", *few)[1]) == 2 * (6 + 21 + 4 * 10 + 21)
    assert len(sweep_of("domainbed_protocol.toml", "--preset", "single", *few)[1]) == 2 * (3 + 6 + 4 * 4 + 6)

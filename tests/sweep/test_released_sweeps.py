"""Sweeps that version 0.1.0 wrote (tests/data/released) still work: tables, states, job names, a relaunch."""

import json
from pathlib import Path

import pytest

from domainbed.scripts import collect_results
from domainbed.sweep.flags import parse
from domainbed.sweep.planned_jobs import make_jobs
from domainbed.training.config import TrainConfig
from domainbed.training.run_hparams import resolved_hparams

RELEASED = Path(__file__).parents[1] / "data" / "released"
FLAGS = [
    *["--datasets", "ColoredDigits", "--algorithms", "ERM", "AgrSum", "AgrRand", "PCGrad", "SANDMask"],
    *["--n_hparams", "1", "--single_test_envs", "--steps", "6", "--checkpoint_freq", "3"],
    *["--checkpoint_every", "0", "--seed_scheme", "paired", "--skip_model_save", "--skip_confirmation"],
    *["--hparams", '{"batch_size": 8, "featurizer": "mlp", "mlp_width": 4, "lr": 0.01}'],
]
SWEEPS = {
    "finished": [*FLAGS, "--n_trials", "2", "--output_dir", "finished"],
    "half_done": [*FLAGS, "--n_trials", "1", "--test_envs", "0", "--output_dir", "half_done"],
}


@pytest.fixture
def sweeps(unpack_released):
    """The directory that holds both sweeps; also the current one."""
    return unpack_released("sweeps")


def runs_of(name):
    return [path for path in Path(name).iterdir() if path.is_dir()]


def contents(run):
    return {path.name: path.read_bytes() for path in run.iterdir()}


def records(run):
    return [json.loads(line) for line in (run / "results.jsonl").read_text(encoding="utf-8").splitlines()]


@pytest.mark.parametrize("name", SWEEPS)
def test_the_tables_are_the_same(sweeps, capsys, name):
    collect_results.main(["--input_dir", name])
    assert capsys.readouterr().out == (RELEASED / f"{name}.txt").read_text(encoding="utf-8")


@pytest.mark.parametrize("name", SWEEPS)
def test_the_jobs_have_the_same_names(sweeps, name):
    jobs = make_jobs(parse(["launch", *SWEEPS[name]]))
    assert {job.name for job in jobs} == {run.name for run in runs_of(name)}


def test_hyper_parameters_have_the_same_values(sweeps):
    for run in runs_of("finished"):
        content = json.loads((run / "run.json").read_text(encoding="utf-8"))
        then, now = content["hparams"], resolved_hparams(TrainConfig(**content["settings"]))
        assert then.keys() - now.keys() <= {"zero_agrees"}, run
        assert now == {**now, **{name: value for name, value in then.items() if name in now}}, run


@pytest.mark.parametrize(("name", "done", "interrupted"), [("finished", 30, 0), ("half_done", 1, 4)])
def test_the_status_tells_each_state(sweeps, forked_script, name, done, interrupted):
    status = json.loads(forked_script("sweep", "status", "--output_dir", name, "--json").stdout)
    assert {state: count for state, count in status["counts"].items() if count} == {
        state: count for state, count in [("done", done), ("interrupted", interrupted)] if count
    }
    by_name = {run["name"]: run["state"] for run in status["runs"]}
    assert by_name == {
        run.name: "done" if (run / "done").exists() else "interrupted" for run in runs_of(name)
    }


def test_a_finished_sweep_has_nothing_left_to_do(sweeps, forked_script):
    before = {run: contents(run) for run in runs_of("finished")}
    launched = forked_script("sweep", "launch", *SWEEPS["finished"])
    assert launched.returncode == 0, launched.stderr
    assert "Nothing to launch in finished" in launched.stdout
    assert {run: contents(run) for run in before} == before


def test_a_half_done_sweep_is_finished_with_the_numbers_of_undisturbed_runs(sweeps, forked_script):
    runs = {run.name: run for run in runs_of("half_done")}
    done = {run: contents(run) for run in runs.values() if (run / "done").exists()}
    resumed = [run for run in runs.values() if (run / "checkpoint.pt").exists()]
    assert (len(runs), len(done), len(resumed)) == (5, 1, 3)

    launched = forked_script("sweep", "launch", *SWEEPS["half_done"])

    assert launched.returncode == 0, launched.stdout + launched.stderr
    assert all((run / "done").exists() for run in runs.values())
    assert {run: contents(run) for run in done} == done
    for run in resumed:
        assert "4 of 6 updates" in (run / "out.txt").read_text(encoding="utf-8")
        assert not list(run.glob("attempt-*"))
    for name, run in runs.items():
        for record, expected in zip(records(run), records(Path("finished", name)), strict=True):
            assert expected.keys() <= record.keys()
            for key in ("step", "epoch", "sizes", "data"):
                assert record[key] == expected[key]
            assert record["loss"] == pytest.approx(expected["loss"], rel=1e-4), run
            # One image on the boundary between two classes may fall on either side of it elsewhere.
            for key in expected:
                if key.endswith("_acc"):
                    size = expected["sizes"][key.removesuffix("_acc")]
                    assert record[key] == pytest.approx(expected[key], abs=1.5 / size), (run, key)

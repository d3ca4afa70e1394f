"""`domainbed.launch_sweep`, `collect` and `report`: what the command lines do, from Python."""

import csv
import inspect
import io
import json
import re
import shlex
import subprocess
import sys
from dataclasses import fields
from pathlib import Path

import nbformat
import numpy as np
import pytest
from nbclient import NotebookClient

import domainbed
from domainbed.algorithms import REGISTRY
from domainbed.algorithms.erm import ERM
from domainbed.errors import RunError, UnknownName, UsageError, describe
from domainbed.records.sweep_records import read_sweep_records
from domainbed.scripts import collect_results
from domainbed.scripts import sweep as sweep_script
from domainbed.sweep.api import NOT_IN_PYTHON
from domainbed.sweep.flags import FLAGS, SweepFlags
from domainbed.sweep.manifest import read_manifest
from domainbed.training.stop_requests import AFTER_STEP, Preempted

ROOT = Path(__file__).parents[1]
NOTEBOOK = ROOT / "docs" / "sweep.ipynb"

GRID = {
    "datasets": ["Debug28"],
    "algorithms": "ERM",
    "n_trials": 2,
    "n_hparams": 1,
    "test_envs": [0, 2],
    "single_test_envs": True,
    "hparams": {"batch_size": 4},
    "steps": 3,
    "holdout_fraction": np.float64(0.25),
    "grouping": ["domain", "pooled"],
    "command_launcher": "dummy",
    "quiet": True,
}


@pytest.fixture(scope="module")
def sweep(tmp_path_factory):
    """Records of ERM and AgrSum in two trials on three targets; AgrSum lacks the last trial of target 2."""
    folder = tmp_path_factory.mktemp("sweep")
    random = np.random.default_rng(0)
    for algorithm in ("ERM", "AgrSum"):
        for trial in range(2):
            for target in range(3):
                if (algorithm, trial, target) != ("AgrSum", 1, 2):
                    write_run(folder, algorithm, trial, target, random.random((2, 3)))
    return folder


def write_run(folder, algorithm, trial, target, accuracies):
    """A finished run of one record; `accuracies` (2, 3) are those of in- and out-splits."""
    args = {"algorithm": algorithm, "dataset": "Debug28", "test_envs": [target], "trial_seed": trial}
    args |= {"hparams_seed": 0, "seed": 0, "steps": 11, "hparams": None, "holdout_fraction": 0.2}
    record = {"args": args, "hparams": {"lr": 0.1}, "step": 10, "env0_in_nll": 0.5}
    for i, (inside, outside) in enumerate(accuracies.T.tolist()):
        record |= {f"env{i}_in_acc": inside, f"env{i}_out_acc": outside}
    run = folder / f"{algorithm}_{trial}_{target}"
    run.mkdir()
    (run / "results.jsonl").write_text(json.dumps(record) + "\n")
    (run / "done").write_text("done")


def csv_of(folder, capsys, *flags):
    """The first table of `collect_results --format csv`."""
    assert collect_results.main(["--input_dir", str(folder), "--format", "csv", *flags]) == 0
    return list(csv.DictReader(io.StringIO(capsys.readouterr().out.split("\n\n")[0])))


def test_a_sweep_launched_from_python_is_that_of_its_command_line(tmp_path, capsys):
    path = domainbed.launch_sweep(tmp_path / "sweep", **GRID)
    assert path == tmp_path / "sweep"
    launched = [line for line in capsys.readouterr().out.splitlines() if line.startswith("Dummy launcher: ")]
    assert len(launched) == 8
    assert all("--holdout_fraction 0.25" in line and "--steps 3" in line for line in launched)
    manifest = read_manifest(path)
    (command,) = manifest.commands
    words = shlex.split(command)
    assert words[:3] == ["python", "-m", "domainbed.scripts.sweep"]
    other = tmp_path / "other"
    assert sweep_script.main([*words[3:], "--output_dir", str(other)]) == 0
    assert read_manifest(other).jobs == manifest.jobs


def test_targets_by_name_are_the_sweep_of_their_indices(tmp_path):
    emoji = GRID | {"datasets": "EmojiStyles", "target_sets": None}
    sweeps = [
        domainbed.launch_sweep(tmp_path / name, **emoji | {"test_envs": targets})
        for name, targets in (("indices", [0, 2]), ("names", [0, "line"]))
    ]
    sets = {"single_test_envs": None, "test_envs": None}
    sweeps += [
        domainbed.launch_sweep(tmp_path / name, **emoji | sets | {"target_sets": targets})
        for name, targets in (("indexed sets", ["0 2", "1"]), ("named sets", ["flat Line", "gradient"]))
    ]
    contents = [(each.jobs, each.target_sets) for each in map(read_manifest, sweeps)]
    assert contents[0] == contents[1] != contents[2] == contents[3]


def test_an_argument_of_python_for_each_flag_of_sweep():
    parameters = inspect.signature(domainbed.launch_sweep).parameters
    own = {field.name for field in fields(SweepFlags)} - {*NOT_IN_PYTHON, "seed"}
    assert own <= {*parameters}
    assert {*parameters} - {"config", "preset", "settings"} <= {*FLAGS}
    documented = inspect.getdoc(domainbed.launch_sweep)
    assert not [name for name in parameters if f"\n    {name}: " not in documented]


@pytest.mark.parametrize("function", [domainbed.collect, domainbed.report])
def test_an_argument_of_python_for_each_flag_of_collect_results(function):
    names = {*inspect.signature(function).parameters} - {"frame", "options"}
    flags = {action.dest for action in collect_results.build_parser()._actions}
    assert names <= flags
    assert {"input_dir", "selection", "metric", "over_targets", "where", "by", "target_sets"} <= names


def test_a_setting_of_the_sweep_file_stays_where_python_gives_none(tmp_path, capsys):
    file = tmp_path / "mine.toml"
    file.write_text('datasets = ["Debug28"]\nalgorithms = ["ERM"]\nn_trials = 2\nn_hparams = 1\nsteps = 2\n')
    domainbed.launch_sweep(tmp_path / "a", config=file, single_test_envs=True, dry_run=True, verbose=True)
    assert "6 jobs" in capsys.readouterr().out
    domainbed.launch_sweep(tmp_path / "a", config=file, n_trials=1, single_test_envs=True, dry_run=True)
    assert "3 jobs" in capsys.readouterr().out
    assert not (tmp_path / "a").exists()


@pytest.mark.parametrize(
    ("arguments", "error"),
    [
        ({"n_trails": 2}, "launch_sweep has no argument n_trails. Did you mean n_trials or"),
        ({"watch": True}, "launch_sweep has no argument watch."),
        ({"n_trials": "two"}, "argument n_trials takes a value of type int, not 'two'."),
        ({"n_trials": 0}, "--n_trials must be at least 1, not 0."),
        ({"test_envs": 0}, "argument test_envs takes a value of type list[int or name], not 0."),
        ({"test_envs": "sketch"}, "--test_envs sketch: Debug28 has no such environment. Known: 0, 1, 2."),
        ({"test_envs": ["-90%"]}, "--test_envs -90%: Debug28 has no such environment. Known: 0, 1, 2."),
        ({"datasets": []}, "argument datasets is empty; give at least one value, or leave it out."),
        ({"single_test_envs": "yes"}, "argument single_test_envs takes a value of type bool, not 'yes'."),
        ({"algorithms": ["AgrSun"]}, "Algorithm not found: AgrSun. Did you mean AgrSum"),
    ],
)
def test_a_wrong_argument_is_named_and_nothing_is_written(arguments, error, tmp_path):
    with pytest.raises(UsageError) as raised:
        domainbed.launch_sweep(tmp_path / "sweep", **{**GRID, **arguments})
    assert describe(raised.value).startswith(f"error: {error}")
    assert not (tmp_path / "sweep").exists()


def test_a_switch_that_the_sweep_file_sets_cannot_be_unset(tmp_path):
    file = tmp_path / "mine.toml"
    file.write_text('datasets = ["Debug28"]\nalgorithms = ["ERM"]\nskip_model_save = true\n')
    with pytest.raises(UsageError, match="skip_model_save is set in the sweep file"):
        domainbed.launch_sweep(tmp_path / "a", config=file, skip_model_save=False, dry_run=True)


ONE_RUN = GRID | {"command_launcher": "local", "n_trials": 1, "test_envs": [0], "grouping": "domain"}


class Broken(ERM):
    """Fails in its first update."""

    def update(self, minibatches, unlabeled=None):
        raise RuntimeError("not today")


def test_runs_that_fail_are_an_error_that_names_the_directory(tmp_path, capsys, monkeypatch):
    monkeypatch.setitem(REGISTRY, "Broken", Broken)
    with pytest.raises(RunError, match=r"sweep failed, see failed\.json .* launches them again"):
        domainbed.launch_sweep(tmp_path / "sweep", **ONE_RUN | {"algorithms": ["Broken"]})
    assert "not today" in capsys.readouterr().err


def test_a_sweep_stopped_by_its_time_limit_is_resumed_by_the_same_call(tmp_path):
    with pytest.raises(Preempted, match="sweep were stopped; the same call resumes them"):
        domainbed.launch_sweep(tmp_path / "sweep", **ONE_RUN, time_limit=1e-6)
    domainbed.launch_sweep(tmp_path / "sweep", **ONE_RUN)
    frame = domainbed.collect(tmp_path / "sweep", "records", finished_only=True)
    assert frame["step"].tolist()[-1] == 2


def test_the_means_are_those_of_the_csv(sweep, capsys):
    frame = domainbed.collect(sweep)
    rows = csv_of(sweep, capsys)
    assert len(frame) == len(rows) > 0
    for row, (_, found) in zip(rows, frame.iterrows(), strict=True):
        for name in ("selection", "dataset", "algorithm", "environment", "missing"):
            assert row[name] == found[name]
        assert int(row["n"]) == found["n"]
        expected = [float(row[name] or "nan") for name in ("mean", "stderr")]
        np.testing.assert_array_equal(found[["mean", "stderr"]].to_numpy(float), expected)
    assert frame["mean"].isna().any()
    assert {*frame["metric"]} == {"accuracy (%), higher is better"}


def test_the_means_are_the_means_of_the_trials(sweep):
    means = domainbed.collect(sweep, selection=["iid"])
    trials = domainbed.collect(sweep, "trials", selection="iid")
    assert len(trials) == 11
    of_targets = means[means["environment"].isin(trials["environment"]) & (means["n"] > 0)]
    keys = ["algorithm", "environment"]
    found = trials.groupby(keys)["value"].mean()
    np.testing.assert_allclose(found.loc[[*of_targets[keys].itertuples(index=False)]], of_targets["mean"])


def test_the_records_are_all_records(sweep):
    frame = domainbed.collect(sweep, "records")
    records = read_sweep_records(sweep).records()
    assert frame["env1_out_acc"].tolist() == [record["env1_out_acc"] for record in records]
    assert len(domainbed.collect(sweep, "records", where="algorithm=ERM")) == 6


def test_the_paired_frame_has_the_numbers_of_the_paired_tables(sweep, capsys):
    frame = domainbed.collect(sweep, "paired", selection="iid", target_part="test", correction="none")
    assert (
        collect_results.main(
            ["--input_dir", str(sweep), "--selection", "iid", "--format", "csv", "--paired"]
            + ["--paired_selection", "iid", "--target_part", "test", "--correction", "none"]
        )
        == 0
    )
    rows = list(csv.DictReader(io.StringIO(capsys.readouterr().out.split("\n\n")[1])))
    assert len(rows) == len(frame)
    assert [row["p"] for row in rows] == ["" if np.isnan(p) else str(p) for p in frame["p"]]
    assert frame["pairs"].tolist()[1] == 2
    assert frame["target_env"].isna().sum() == 2
    assert str(frame["pairs"].dtype), str(frame["significant"].dtype) == ("Int64", "boolean")


def test_results_by_a_setting_have_its_values_in_the_last_column(sweep):
    frame = domainbed.collect(sweep, selection="iid", by="trial_seed")
    assert frame.columns[-1] == "trial_seed"
    assert {*frame["trial_seed"]} == {"0", "1"}
    trials = domainbed.collect(sweep, "trials", selection="iid")
    by_seed = domainbed.collect(sweep, "trials", selection="iid", by="trial_seed")
    assert by_seed.columns.tolist() == trials.columns.tolist()
    assert sorted(by_seed.itertuples(index=False)) == sorted(trials.itertuples(index=False))


@pytest.mark.parametrize(
    ("arguments", "error"),
    [
        ({"frame": "mean"}, "Frame of results not found: mean. Did you mean means?"),
        ({"metric": "accuracy"}, "Metric not found: accuracy. Known: acc, nll"),
        ({"over_targets": "best"}, "over_targets is one of mean, worst, not 'best'."),
        ({"selection": "idd"}, "Selection method not found: idd. Did you mean iid"),
        ({"baselin": "ERM"}, "no section of the report has an option baselin. Did you mean baseline?"),
        ({"rope": "much"}, "argument --rope: invalid float value: 'much'."),
        ({"rope": [1, 2]}, "an option of the report takes one value, and got others too: 2."),
    ],
)
def test_a_wrong_argument_of_collect_is_named(sweep, arguments, error):
    with pytest.raises((UsageError, UnknownName)) as raised:
        domainbed.collect(sweep, **arguments)
    assert describe(raised.value).startswith(f"error: {error}")


def test_a_report_prints_what_the_command_prints_and_returns_its_files(sweep, tmp_path, capsys):
    written = domainbed.report(
        sweep,
        html=tmp_path / "page.html",
        output_dir=str(tmp_path),
        selection="iid",
        relaunch_best=tmp_path / "best.toml",
        paired=True,
        baseline="ERM",
    )
    assert written == [tmp_path / "results.txt", tmp_path / "page.html", tmp_path / "best.toml"]
    assert all(path.stat().st_size for path in written)
    printed = capsys.readouterr().out
    assert printed == written[0].read_text()
    flags = ["--selection", "iid", "--paired", "--output_dir", str(tmp_path / "other")]
    assert collect_results.main(["--input_dir", str(sweep), *flags]) == 0
    assert capsys.readouterr().out == printed


def test_the_functions_are_imported_on_first_use_only():
    code = (
        "import sys, domainbed; assert {'collect', 'launch_sweep', 'report'} <= {*dir(domainbed)}; "
        "heavy = [name for name in ('torch', 'pandas', 'domainbed.sweep', 'domainbed.results') "
        "if name in sys.modules]; assert not heavy, heavy; assert callable(domainbed.collect)"
    )
    subprocess.run([sys.executable, "-c", code], check=True, cwd=ROOT)
    with pytest.raises(AttributeError, match="module 'domainbed' has no attribute 'colect'"):
        domainbed.colect  # noqa: B018


@pytest.mark.parametrize("name", domainbed.__all__)
def test_no_function_has_the_name_of_a_module(name):
    folder = Path(domainbed.__file__).parent
    assert not (folder / name).exists()
    assert not (folder / f"{name}.py").exists()


def code_of_notebook():
    notebook = nbformat.read(NOTEBOOK, as_version=4)
    return notebook, [cell["source"] for cell in notebook.cells if cell["cell_type"] == "code"]


def test_the_notebook_is_kept_without_its_outputs():
    notebook, _ = code_of_notebook()
    nbformat.validate(notebook)
    assert not any(cell.get("outputs") or cell.get("execution_count") for cell in notebook.cells)


def test_the_readme_shows_cells_of_the_notebook():
    _, cells = code_of_notebook()
    blocks = re.findall(r"^```python\n(.*?)^```", (ROOT / "README.md").read_text(), re.DOTALL | re.MULTILINE)
    (shown,) = [block for block in blocks if "launch_sweep" in block]
    notebook = {line for cell in cells for line in cell.splitlines()}
    assert {*shown.splitlines()} <= notebook


@pytest.mark.slow
def test_a_notebook_shows_the_bar_of_a_run_and_where_it_writes_and_answers_an_interrupt(
    tmp_path, monkeypatch
):
    # A kernel in a test of ipykernel's own does not show what file descriptor 2 gets.
    monkeypatch.delenv("PYTEST_CURRENT_TEST")
    monkeypatch.setenv("IPYTHONDIR", str(tmp_path / "ipython"))
    monkeypatch.setenv("JUPYTER_RUNTIME_DIR", str(tmp_path / "jupyter"))
    monkeypatch.setenv("PYTHONPATH", str(ROOT))
    notebook = nbformat.v4.new_notebook()
    code = (
        "import domainbed; domainbed.train(dataset='Debug28', steps=3, output_dir='run')[['step']]",
        "import signal\nfrom domainbed.algorithms import REGISTRY\nfrom domainbed.algorithms.erm import ERM\n"
        "class Stopping(ERM):\n"
        "    def update(self, *minibatches):\n        signal.raise_signal(signal.SIGINT)\n"
        "        return super().update(*minibatches)\n"
        "REGISTRY['Stopping'] = Stopping\n"
        "domainbed.train(dataset='Debug28', algorithm='Stopping', output_dir='stopped')",
    )
    notebook.cells = [nbformat.v4.new_code_cell(each) for each in code]
    settings = {"timeout": 600, "allow_errors": True, "resources": {"metadata": {"path": str(tmp_path)}}}
    cells = NotebookClient(notebook, **settings).execute().cells
    shown = ["".join(each["text"] for each in cell["outputs"] if "text" in each) for cell in cells]
    assert "ERM on Debug28: files go to run.\n" in shown[0]
    assert "ERM:   0%" in shown[0]
    assert AFTER_STEP in shown[1]
    (error,) = [each for each in cells[1]["outputs"] if each["output_type"] == "error"]
    assert error["evalue"] == "Interrupted. Run the same command to resume from the checkpoint."


@pytest.mark.slow
def test_the_notebook_runs_in_a_real_kernel(tmp_path, monkeypatch):
    monkeypatch.setenv("IPYTHONDIR", str(tmp_path / "ipython"))
    monkeypatch.setenv("JUPYTER_RUNTIME_DIR", str(tmp_path / "jupyter"))
    monkeypatch.setenv("PYTHONPATH", str(ROOT))
    notebook, _ = code_of_notebook()
    client = NotebookClient(notebook, timeout=600, resources={"metadata": {"path": str(tmp_path)}})
    done = client.execute()
    outputs = {cell["id"]: cell["outputs"] for cell in done.cells if cell["cell_type"] == "code"}
    launched = "".join(each["text"] for each in outputs["launch"] if each.get("name") == "stdout")
    assert "About to launch 16 jobs." in launched
    assert all((run / "done").exists() for run in (tmp_path / "runs/notebook").iterdir() if run.is_dir())
    (means,) = [each["data"] for each in outputs["means"] if each["output_type"] == "execute_result"]
    assert "text/html" in means
    assert "AgrSum" in means["text/plain"]
    (paired,) = [each["data"] for each in outputs["paired"] if each["output_type"] == "execute_result"]
    assert "undecided" in paired["text/plain"]
    assert (tmp_path / "report.html").stat().st_size > 10_000
    assert not [each for cell in outputs.values() for each in cell if each["output_type"] == "error"]

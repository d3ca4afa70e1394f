"""The study of gradient variances from its command line and from Python."""

from __future__ import annotations

import json
import math
import os
import re
import shutil
import signal
import subprocess
import sys

import pytest

from domainbed.errors import RunError, UsageError
from domainbed.scripts import collect_results, train
from domainbed.training.stop_requests import Preempted
from domainbed_gs.alignment import study
from domainbed_gs.alignment.settings import ALIGNMENT, NUMBERS, QUANTITIES, TRAINING, Alignment
from domainbed_gs.alignment.training import TABLE, AlignmentLoop
from domainbed_gs.scripts import alignment

CHANGING = ("step_time", "args")


def flags(path, **more):
    hparams = '{"batch_size": 4, "featurizer": "small_cnn"}'
    settings = {"dataset": "Debug28", "steps": 2, "checkpoint_freq": 2, "hparams": hparams}
    settings |= {"output_dir": path} | more
    return [f"--{name}" if value is True else f"--{name}={value}" for name, value in settings.items()]


SMALL = ["--samples=4", "--probes=2", "--every=2"]


def records_of(path):
    lines = (path / "results.jsonl").read_text().splitlines()
    return [{k: v for k, v in json.loads(line).items() if k not in CHANGING} for line in lines]


@pytest.fixture(scope="module")
def runs(tmp_path_factory):
    """Runs of ERM and Fishr that were measured during training; tests do not change them."""
    folder = tmp_path_factory.mktemp("runs")
    for name in ("ERM", "Fishr"):
        assert alignment.main([*flags(folder / name, algorithm=name), *SMALL]) == 0
    return folder


def test_a_measured_run_is_an_ordinary_run_with_measurements_and_its_last_one_is_that_of_its_model(
    runs, tmp_path
):
    rows = TABLE.read(runs / "ERM" / TRAINING)
    assert sorted({row["step"] for row in rows}) == [0, 2]
    assert (runs / "ERM" / "alignment_training.png").read_bytes().startswith(b"\x89PNG")
    assert train.main(flags(tmp_path / "plain")) == 0
    assert records_of(runs / "ERM") == records_of(tmp_path / "plain")
    of_model = study.measure(runs / "ERM", samples=4, probes=2, device="cpu").to_dict("records")
    last = [row for row in rows if row["step"] == 2]
    assert len(last) == len(of_model) == 2 * 6  # kinds of parameters, pairs of three environments
    for during, after in zip(last, of_model, strict=True):
        for name in TABLE.header[1:]:
            expected = during[name]
            assert after[name] == (
                expected if isinstance(expected, str) else pytest.approx(expected, rel=1e-2, nan_ok=True)
            )


def test_each_pair_has_a_row_with_every_quantity(runs):
    rows = TABLE.read(runs / "Fishr" / TRAINING)
    first = [row for row in rows if row["step"] == 0 and row["parameters"] == "classifier"]
    assert [row["pair"] for row in first] == [
        *("source-target", "source-target", "source-source"),
        *("within-target", "within-source", "within-source"),
    ]
    assert {row["components"] for row in first} == {128 * 2 + 2}
    assert {row["count"] for row in first} == {2}
    for row in rows:
        for name in ("mean", "variance", "fisher"):
            assert 0 <= row[f"{name}_distance"] <= 2
        # Where chance dominates, the estimated norms of Hessians may be negative.
        assert math.isfinite(row["hessian_distance"]) is (row["hessian_norms"] > 0)
    # The classifier is linear, so the Hessian's diagonal is that of the Fisher information, exactly.
    for row in rows:
        if row["parameters"] == "classifier":
            assert row["hessian_distance"] == pytest.approx(row["fisher_distance"], abs=1e-4)


def test_an_interrupted_run_has_the_same_table(runs, tmp_path, monkeypatch):
    measure = AlignmentLoop._measure

    def stopping(loop):
        if loop.updates == 0:
            os.kill(os.getpid(), signal.SIGTERM)
        measure(loop)

    monkeypatch.setattr(AlignmentLoop, "_measure", stopping)
    with pytest.raises(Preempted):
        alignment.main([*flags(tmp_path), *SMALL])
    monkeypatch.undo()
    assert {row["step"] for row in TABLE.read(tmp_path / TRAINING)} == {0}
    alignment.main([*flags(tmp_path), *SMALL])
    assert (tmp_path / TRAINING).read_text() == (runs / "ERM" / TRAINING).read_text()
    assert records_of(tmp_path) == records_of(runs / "ERM")


def test_a_sweeps_models_are_measured_once_and_shown_in_its_report(runs, tmp_path, capsys, monkeypatch):
    command = ["--sweep", str(runs), "--output_dir", str(tmp_path), "--quantities", "mean", "variance"]
    assert alignment.main([*command, "--samples=4", "--device=cpu"]) == 0
    out = capsys.readouterr().out
    assert "Dataset: Debug28, part in: distance of mean gradients, all trained parameters" in out
    assert "Hessian, all" not in out
    assert out.endswith(f"Figure: {tmp_path / 'alignment.png'}\n")
    table = (tmp_path / ALIGNMENT).read_text()
    monkeypatch.setattr("domainbed_gs.alignment.measure.draw_samples", None)  # nothing is measured again
    assert alignment.main([*command, "--samples=4", "--device=cpu"]) == 0
    assert (tmp_path / ALIGNMENT).read_text() == table
    monkeypatch.undo()
    (tmp_path / "run").symlink_to(runs / "ERM")
    for form in ([], ["--html", str(tmp_path / "page.html")]):
        collect_results.main(["--input_dir", str(tmp_path), "--alignment", *form])
    assert "distance of variances of the samples' gradients, the classifier" in capsys.readouterr().out
    page = (tmp_path / "page.html").read_text()
    for parameters in ("classifier", "all trained parameters"):  # a panel for each quantity
        for quantity in ("mean gradients", "variances of the samples' gradients"):
            assert f"Distances between environments: Debug28, part in: {quantity}, {parameters}" in page


def test_curves_of_several_methods_are_drawn_in_one_figure(runs, tmp_path, capsys):
    command = ["--curves", str(runs / "ERM"), str(runs / "Fishr"), "--output_dir", str(tmp_path)]
    assert alignment.main(command) == 0
    assert capsys.readouterr().out == f"Figure: {tmp_path / 'alignment_training.png'}\n"
    from domainbed_gs.alignment.figure import mean_curve, training_figure

    found = study.read_training([runs / "ERM", runs / "Fishr"])
    assert repr(study.read_training([runs])) == repr(found)  # the folder of the runs; NaN is unlike itself
    methods = found.of_part("in")
    figure = training_figure(methods, found.title("in"))
    assert len(figure.axes) == 2 * len(QUANTITIES)
    labels = [text.get_text() for text in figure.legends[0].get_texts()]
    assert labels[:2] == ["ERM, source-source", "ERM, source-target"]
    steps, means = mean_curve(methods["ERM"], "all", "variance", "source-target")
    rows = [row for row in methods["ERM"][0] if row["step"] == 2 and row["parameters"] == "all"]
    own = [row["variance_distance"] for row in rows if row["pair"] == "source-target"]
    assert (steps, means[1]) == ([0, 2], pytest.approx(sum(own) / 2))


@pytest.mark.parametrize(
    ("command", "message"),
    [
        (["--model", "RUN", "--steps", "5"], "--steps has no effect with --model"),
        (["--model", "RUN", "--every", "5"], "--every has no effect with --model"),
        (["--sweep", "RUN", "--every", "20"], "--every has no effect with --sweep"),
        (["--curves", "RUN", "--samples", "64", "--output_dir", "y"], "--samples has no effect"),
        (["--curves", "RUN", "--baseline", "ERM", "--output_dir", "y"], "--baseline has no effect"),
        (["--curves", "RUN", "--restart", "--output_dir", "y"], "--restart has no effect with --curves"),
        (["--curves", "RUN", "--output_dir", "FILE"], "cannot write to FILE: File exists; choose another"),
        (["--curves", "RUN", "--output_dir", "FILE/y"], "cannot write to FILE/y: Not a directory; choose"),
        (["--curves", "PLAIN", "--output_dir", "y"], "PLAIN was not measured during training; train it with"),
        (["--curves", "RUN", "OTHER", "--output_dir", "y"], "RUN is a run of Debug28 and OTHER of Debug224"),
        (["--sweep", "RUN"], "RUN is a run; use --model RUN"),
        (["--curves", "RUN", "--data_dir", "x", "--output_dir", "y"], "--data_dir has no effect"),
        (["--curves", "RUN"], "--curves needs --output_dir"),
        (["--curves", "nowhere", "--output_dir", "y"], "nowhere is not the directory of a run"),
        (["--model", "RUN", "RUN"], "several models need --output_dir"),
        (["--model", "nowhere"], "model nowhere does not exist; give the directory of a run or a model file"),
        (["--model", "RUN", "--samples", "5", "--output_dir", "OUT"], "--samples must be even"),
        (["--model", "RUN", "--samples", "2", "--output_dir", "OUT"], "--samples must be at least 4, not 2"),
        (["--model", "RUN", "--quantities", "mean", "mean", "--output_dir", "OUT"], "names mean twice"),
        (["--model", "DAMAGED", "--output_dir", "OUT"], "DAMAGED"),
        (["--model", "RUN", "--parts", "test", "--output_dir", "OUT"], "no samples in the part 'test'"),
        (["--baseline", "ERM"], "--baseline is for --model and --sweep"),
        (["--dataset", "Debug28", "--every", "0"], "--every must be at least 1"),
        (["--dataset", "Debug28", "--compile"], "leave out --compile"),
    ],
)  # fmt: skip
def test_what_cannot_be_done_is_refused_in_one_line(command, message, runs, tmp_path):
    damaged = tmp_path / "damaged.pkl"
    damaged.write_bytes(b"no model")
    plain, other = tmp_path / "plain", tmp_path / "other"
    for folder, dataset in ((plain, "Debug28"), (other, "Debug224")):
        folder.mkdir()
        settings = {"settings": {"algorithm": "ERM", "dataset": dataset}}
        (folder / "run.json").write_text(json.dumps(settings))
    shutil.copy(runs / "ERM" / TRAINING, other)
    places = {"RUN": runs / "ERM", "DAMAGED": damaged, "FILE": damaged, "OUT": tmp_path / "out"}
    places |= {"PLAIN": plain, "OTHER": other}

    def placed(text):
        return re.sub("[A-Z]{3,}", lambda word: str(places.get(word[0], word[0])), text)

    with pytest.raises(UsageError) as raised:
        alignment.main([placed(word) for word in command])
    message = placed(message)
    assert message in str(raised.value)
    assert "\n" not in str(raised.value)


def test_runs_measured_on_several_parts_have_a_figure_for_each(runs, tmp_path, capsys):
    rows = TABLE.read(runs / "ERM" / TRAINING)
    for name, parts in (("ERM", ["in"]), ("Fishr", ["in", "out"])):
        shutil.copytree(runs / name, tmp_path / name)
        (tmp_path / name / TRAINING).unlink()
        TABLE.append(tmp_path / name / TRAINING, [{**row, "part": part} for row in rows for part in parts])
    found = study.read_training([tmp_path])
    assert found.parts == ["in", "out"]
    assert list(found.of_part("out")) == ["Fishr"]
    target = next(row["first"] for row in rows if row["pair"] == "within-target")
    start = f"Distances between environments over training: Debug28, target {target}"
    assert found.title("in") == f"{start}, part in, 2 runs"
    assert found.title("out") == f"{start}, part out, 1 run"
    assert alignment.main(["--curves", str(tmp_path), "--output_dir", str(tmp_path / "figures")]) == 0
    assert capsys.readouterr().out.splitlines() == [
        f"Figure: {tmp_path / 'figures' / f'alignment_training_part_{part}.png'}" for part in ("in", "out")
    ]


def test_a_damaged_number_of_a_run_is_one_line(runs, tmp_path):
    folder = shutil.copytree(runs / "ERM", tmp_path / "run")
    text = (folder / TRAINING).read_text()
    (folder / TRAINING).write_text(text.replace(",2,", ",2x,", 1))
    with pytest.raises(
        RunError, match=r"has '2x' in the column count, where a number belongs; delete it and"
    ):
        alignment.main(["--curves", str(folder), "--output_dir", str(tmp_path)])


def test_the_other_models_are_shown_before_the_error(runs, tmp_path, capsys):
    sweep = shutil.copytree(runs, tmp_path / "sweep")
    (sweep / "Fishr" / "model.pkl").write_bytes(b"damaged")
    command = ["--sweep", str(sweep), "--quantities", "mean", "--samples=4"]
    with pytest.raises(RunError, match="1 of 2 models could not be measured"):
        alignment.main(command)
    out = capsys.readouterr().out
    assert "distance of mean gradients, all trained parameters" in out
    assert out.endswith(f"Figure: {sweep / 'alignment.png'}\n")
    # From Python, what was measured is returned.
    both = [sweep / "ERM", sweep / "Fishr"]
    assert set(study.measure(both, quantities=["mean"], samples=4)["run"]) == {str(sweep / "ERM")}
    (sweep / "ERM" / "model.pkl").write_bytes(b"damaged")
    with pytest.raises(RunError, match="2 of 2 models could not be measured"):
        study.measure(both)


def test_help_says_what_each_mode_takes(capsys):
    with pytest.raises(SystemExit):
        alignment.main(["--help"])
    text = " ".join(capsys.readouterr().out.split())
    for mode in ("--model RUN_DIR ...", "--sweep SWEEP_DIR", "--curves RUN_DIR ... --output_dir DIR"):
        assert f"scripts.alignment {mode}" in text
    assert "training: directory of the run (default: train_output); --model, --sweep: folder of the" in text
    assert "--model, --sweep: measure all models again" in text
    assert "training: updates from one measurement to the next (default: 20)" in text
    assert "each of two groups has half of them" in text


def test_a_run_in_bfloat16_is_measured_in_float32_and_trained_as_without_measurements(runs, tmp_path):
    fast = {"precision": "bf16", "channels_last": True}
    assert alignment.main([*flags(tmp_path / "run", **fast), *SMALL]) == 0
    assert train.main(flags(tmp_path / "plain", **fast)) == 0
    assert records_of(tmp_path / "run") == records_of(tmp_path / "plain") != records_of(runs / "ERM")
    rows, plain = (TABLE.read(folder / TRAINING) for folder in (tmp_path / "run", runs / "ERM"))
    at_start = [(own, other) for own, other in zip(rows, plain, strict=True) if own["step"] == 0]
    after = study.measure(tmp_path / "run", samples=4, probes=2, device="cpu").to_dict("records")
    last = [row for row in rows if row["step"] == 2]
    for own, other in [*at_start, *zip(last, after, strict=True)]:
        for name in NUMBERS:
            assert own[name] == pytest.approx(other[name], rel=1e-2, nan_ok=True)


def test_an_unknown_setting_from_python_gets_a_suggestion(runs):
    with pytest.raises(UsageError, match="unknown setting 'sample'") as raised:
        study.measure(runs / "ERM", sample=4)
    assert "samples" in str(raised.value.__notes__)


def test_settings_are_columns():
    assert Alignment(parts=["in", "out"]).columns()["parts"] == "in out"


MEMORY = """
import sys
import torchvision
from domainbed.memory import peak_memory
from domainbed_gs.alignment import study
from domainbed_gs.scripts import alignment
# Pages of library files, which the system shares and can drop.
status = open("/proc/self/status").read()
of_files = 1024 * int(status.partition("RssFile:")[2].split()[0])
alignment.main(["--model", sys.argv[1], "--samples", "24", "--probes", "2", "--device", "cpu"])
print(peak_memory() - of_files)
"""


@pytest.mark.slow
@pytest.mark.skipif(sys.platform != "linux", reason="reads /proc")
def test_alexnet_is_measured_within_1_5_gb(tmp_path):
    hparams = '{"featurizer": "alexnet", "pretrained": false, "batch_size": 2}'
    settings = flags(tmp_path, dataset="Debug224", steps=1, hparams=hparams, evaluate="reported")
    subprocess.run([sys.executable, "-m", "domainbed.scripts.train", *settings], check=True)
    command = [sys.executable, "-c", MEMORY, str(tmp_path)]
    done = subprocess.run(command, capture_output=True, text=True, check=True)
    taken = int(done.stdout.split()[-1])
    assert taken < 1.5e9, taken

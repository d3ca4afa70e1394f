"""`collect_results --ensembles`, on a small real sweep."""

import contextlib
import csv
import io
import json
import shutil

import numpy as np
import pytest

import domainbed
from domainbed.predictions import read_predictions
from domainbed.predictions.ensemble import ensemble
from domainbed.scripts import collect_results

METHODS = {
    "ERM": {"save_predictions": "selected", "hparams": {"initial_seed": 0}},
    "VREx": {"save_predictions": "all", "skip_model_save": True, "hparams": {}},
    "IRM": {"hparams": {"initial_seed": 3}},
}


@pytest.fixture(scope="module")
def sweep(tmp_path_factory):
    """Two trials each of methods that saved predictions, models, both or neither."""
    folder = tmp_path_factory.mktemp("sweep")
    common = {"dataset": "EmojiStyles", "steps": 1, "test_envs": [1]}
    for name, settings in METHODS.items():
        hparams = {"batch_size": 8, "featurizer": "small_cnn", "lr": 0.003} | settings["hparams"]
        for trial in range(2):
            own = common | settings | {"hparams": hparams, "seed": trial + 1, "trial_seed": trial}
            domainbed.train(algorithm=name, output_dir=folder / f"{name}{trial}", **own)
    return folder


def collected(sweep, folder):
    """Rows of the script's CSV tables with --ensembles, and what it says on stderr."""
    out, notes = io.StringIO(newline=""), io.StringIO()
    flags = ["--selection", "iid", "oracle", "--ensembles", "--format", "csv", "--output_dir", str(folder)]
    with contextlib.redirect_stdout(out), contextlib.redirect_stderr(notes):
        assert collect_results.main(["--input_dir", str(sweep), *flags]) == 0
    return list(csv.reader(io.StringIO(out.getvalue(), newline=""))), " ".join(notes.getvalue().split())


@pytest.fixture(scope="module")
def printed(sweep, tmp_path_factory):
    return collected(sweep, tmp_path_factory.mktemp("out"))


def rows_of(printed, selection):
    """Label of each row of the table -> number on the target."""
    title = f"Dataset: EmojiStyles, ensembles of trials, model selection method: {selection}"
    return {row[1]: row[2] for row in printed[0] if row and row[0] == title}


def test_each_method_has_rows_for_its_trials_their_predictions_and_their_weights(printed, sweep):
    rows = rows_of(printed, "training-domain validation set")
    assert set(rows) >= {
        "ERM, mean of its trials",
        "ERM, average of predictions",
        "ERM, average of weights",
        "VREx, average of predictions",
        "IRM, average of weights",
    }
    assert "VREx, average of weights" not in rows


def test_the_average_of_predictions_is_that_of_the_saved_ones_on_all_images_of_the_target(printed, sweep):
    runs = [read_predictions(sweep / f"ERM{trial}") for trial in range(2)]
    together = ensemble([run.environment(1, "iid") for run in runs])
    counts = json.loads((sweep / "ERM0" / "run.json").read_text())["counts"]["Gradient"]
    assert len(together.labels) == sum(counts.values())
    rows = rows_of(printed, "training-domain validation set")
    assert rows["ERM, average of predictions"] == f"{100 * together.accuracy:.1f}"
    assert rows["ERM, mean of its trials"] == f"{100 * np.mean(together.members):.1f}"


def test_a_rule_that_selects_on_the_target_leaves_out_the_images_that_it_used(printed, sweep):
    runs = [read_predictions(sweep / f"ERM{trial}") for trial in range(2)]
    together = ensemble([[run.part("env1_in", "oracle")] for run in runs])
    rows = rows_of(printed, "test-domain validation set (oracle)")
    assert rows["ERM, average of predictions"] == f"{100 * together.accuracy:.1f}"
    assert f"without those that took part in the selection: Gradient {len(together.labels)}" in printed[1]


def test_the_reason_for_each_row_that_is_left_out_is_said(printed):
    notes = printed[1]
    assert "VREx on Gradient: its trials began with different weights; launch them with --hparams" in notes
    assert "'{\"initial_seed\": 0}'" in notes


def test_trials_without_predictions_and_models_have_no_ensemble_and_the_reason_is_said(sweep, tmp_path):
    for trial in range(2):
        files = shutil.ignore_patterns("predictions.npz")
        shutil.copytree(sweep / f"VREx{trial}", tmp_path / "sweep" / f"VREx{trial}", ignore=files)
    printed = collected(tmp_path / "sweep", tmp_path)
    assert rows_of(printed, "training-domain validation set") == {"VREx, average of predictions": "X"}
    assert "No average of predictions of VREx on Gradient:" in printed[1]
    assert "train the run with --save_predictions last, selected or all; nor can its model" in printed[1]


def test_a_single_trial_has_no_ensemble(sweep, tmp_path):
    shutil.copytree(sweep / "ERM0", tmp_path / "sweep" / "ERM0")
    printed = collected(tmp_path / "sweep", tmp_path)
    assert rows_of(printed, "training-domain validation set") == {"ERM, average of predictions": "X"}
    assert "No average of predictions of ERM on Gradient: there is one trial." in printed[1]


def test_it_is_said_that_an_ensemble_is_one_number_without_trials(printed):
    notes = printed[1]
    assert "is one number: there are no trials of it, so it has no standard error and is in no test" in notes
    assert "or with its saved model at its last step" in notes  # of IRM


def test_without_the_flag_the_report_has_no_ensembles(sweep, tmp_path, capsys):
    collect_results.main(["--input_dir", str(sweep), "--output_dir", str(tmp_path)])
    assert "ensembles" not in capsys.readouterr().out


def test_a_page_has_the_ensembles_and_the_confusion_matrices(sweep, tmp_path, without_matplotlib):
    page = tmp_path / "page.html"
    collect_results.main(
        ["--input_dir", str(sweep), "--output_dir", str(tmp_path), "--ensembles", "--html", str(page)]
        + ["--selection", "iid"]
    )
    text = page.read_text()
    assert '<section id="ensembles">' in text
    assert '<section id="confusion">' in text
    assert text.count('class="table matrix"') == 2  # of ERM and VREx
    assert "EmojiStyles, Gradient: ERM, 2 trials" in text

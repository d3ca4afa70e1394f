"""Confusion matrices averaged over trials, and their part of a page."""

import contextlib
import io
import json

import numpy as np
import pytest

from domainbed.model_selection import METHODS
from domainbed.predictions.file import packed_paths, write_predictions
from domainbed.records.query import Q
from domainbed.results.confusion_matrices import ConfusionMatrix, confusion_matrices
from domainbed.results.hparam_search import ranked_candidates
from domainbed.results.page import confusion
from domainbed.scripts import collect_results

NAMES = ["cat", "<dog>", "fish"]


def save(sweep, record, predicted, labels, steps=(300,)):
    """Write predictions of the target's in-split of a run."""
    (target,) = record["args"]["test_envs"]
    part = f"env{target}_in"
    about = {
        "format": 1,
        "classes": NAMES,
        "environments": list("CLSV"),
        "parts": {part: target},
        "steps": list(steps),
        "selected": {},
    }
    samples = {
        "labels": np.array(labels, dtype=np.uint8),
        "positions": np.arange(len(labels), dtype=np.uint32),
    }
    samples["images"] = packed_paths(f"{i}.png" for i in range(len(labels)))
    arrays = {
        f"{step}/{part}/{name}": array
        for step in steps
        for name, array in {
            "predicted": np.array(predicted, dtype=np.uint8),
            "log_probabilities": np.log(np.full((len(labels), 3), 1 / 3)).astype(np.float16),
        }.items()
    }
    run = sweep / record["args"]["output_dir"].rpartition("/")[2]
    write_predictions(
        run, about, {part: samples}, {step: arrays if step == steps[0] else {} for step in steps}
    )


@pytest.fixture
def sweep(vlcs, tmp_path):
    """A sweep of two trials whose run with target 0 selects a known step."""
    vlcs.runs = {key: accs for key, accs in vlcs.runs.items() if key[1] == (0,) and key[2] == 0}
    for accs in vlcs.runs.values():
        accs[1, :, :] = 0.5
        accs[1, 1, :] = 0.75  # step 300
    return vlcs.write(tmp_path / "sweep")


def records_of(sweep):
    paths = sorted(sweep.glob("*/results.jsonl"))
    return [json.loads(line) for path in paths for line in path.read_text().splitlines()]


def test_shares_of_each_class_are_averaged_over_the_trials_that_have_it(sweep):
    records = records_of(sweep)
    first, second = (next(r for r in records if r["args"]["trial_seed"] == trial) for trial in (0, 1))
    save(sweep, first, [0, 1, 1, 1], [0, 0, 1, 1])
    save(sweep, second, [0, 0, 2, 2], [0, 0, 1, 1])
    method = METHODS["iid"]
    (matrix,) = confusion_matrices(sweep, ranked_candidates(Q(records), method), method)
    assert (matrix.dataset, matrix.algorithm, matrix.target, matrix.trials) == ("VLCS", "ERM", 0, 2)
    assert matrix.classes == NAMES
    np.testing.assert_allclose(matrix.shares[:2], [[0.75, 0.25, 0], [0, 0.5, 0.5]])
    assert np.isnan(matrix.shares[2]).all()
    assert matrix.confusions() == [("<dog>", "fish", 0.5), ("cat", "<dog>", 0.25)]


def test_a_page_shows_a_matrix_for_each_method_and_target_and_names_missing_trials(sweep, tmp_path):
    save(sweep, records_of(sweep)[0], [0, 1, 1, 1], [0, 0, 1, 1])
    page = tmp_path / "page.html"
    collect_results.main(["--input_dir", str(sweep), "--selection", "iid", "--html", str(page)])
    text = page.read_text()
    part = text[text.index('<section id="confusion">') :].partition("</section>")[0]
    assert "VLCS, C: ERM, 1 trial" in part
    assert "&lt;dog&gt;" in part
    assert "<dog>" not in part
    assert '<td class="number shaded" style="--share:50%"><b>50</b></td>' in part
    assert "ERM on C without 1 trial:" in part
    assert "train the run with --save_predictions" in part
    assert "averaged over trials" in part


def test_a_page_of_runs_without_the_selected_step_says_what_to_save(sweep, tmp_path):
    for record in records_of(sweep)[::5]:
        save(sweep, record, [0, 1], [0, 1], steps=(1000,))
    page = tmp_path / "page.html"
    collect_results.main(["--input_dir", str(sweep), "--selection", "iid", "--html", str(page)])
    assert "none of the steps that selection by iid selects; --save_predictions all saves every step" in (
        page.read_text()
    )


def test_a_page_of_runs_without_predictions_has_no_such_part(sweep, tmp_path):
    page = tmp_path / "page.html"
    collect_results.main(["--input_dir", str(sweep), "--html", str(page)])
    assert 'id="confusion"' not in page.read_text()


def test_of_many_classes_the_most_frequent_confusions_are_listed():
    classes = [f"class{i}" for i in range(40)]
    shares = np.eye(40) * 0.9 + np.roll(np.eye(40), 1, axis=1) * np.linspace(0.01, 0.1, 40)[:, None]
    html = io.StringIO()
    with contextlib.redirect_stdout(html):
        print(confusion._html(ConfusionMatrix("PACS", "ERM", 0, classes, shares, 3), "PACS, photo"))
    assert html.getvalue().count("<tr>") == 21
    assert '<tr><th scope="row">class39</th><td>class0</td><td class="number">10</td></tr>' in html.getvalue()

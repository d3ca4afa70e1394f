"""The report section on accuracy by search budget, in each format."""

from __future__ import annotations

import csv
import io
import re

import pytest

from domainbed.errors import UsageError


@pytest.fixture
def searched(record):
    """Two trials of ERM on one target with the accuracies 0.5 and 0.7, validation and target alike."""
    runs = []
    for trial in (0, 1):
        for seed, accuracy in enumerate((0.5, 0.7)):
            run = record("ERM", 0, trial, accuracy + trial / 10, dataset="PACS", hparams_seed=seed)
            runs.append(run | {f"env{i}_out_acc": accuracy for i in range(4)})
    return runs


def test_in_text(searched, collect):
    out = collect(searched, "--budget").out
    assert re.search(
        r"-------- Dataset: PACS, expected best accuracy by search budget \(%\)\n"
        r"Algorithm  Settings  Validation  Target  SD of search  SD of trials  Trials *\n"
        r"ERM +1 +60.00 +65.00 +10.00 +7.07 +2 *\n"
        r"ERM +2 +65.00 +70.00 +8.66 +7.07 +2 *\n",
        out,
    )
    assert "drawn with replacement" in " ".join(out.split())
    assert "Note:" not in out


def test_in_csv(searched, collect):
    rows = list(
        csv.DictReader(io.StringIO(collect(searched, "--budget", "--format", "csv").out.split("\n\n")[1]))
    )
    assert [(row["settings"], float(row["target_percent"])) for row in rows] == [
        ("1", pytest.approx(65)),
        ("2", pytest.approx(70)),
    ]
    assert float(rows[1]["sd_search_points"]) == pytest.approx(75**0.5)


def test_a_page_has_it_if_there_was_a_search(searched, collect, tmp_path):
    collect(searched, "--html", str(tmp_path / "page.html"))
    page = (tmp_path / "page.html").read_text()
    assert "<h2>Accuracy by search budget</h2>" in page
    assert 'aria-label="Dataset: PACS, target accuracy by search budget: all algorithms"' in page


def test_no_search(sweep, collect):
    with pytest.raises(UsageError, match="launch a sweep with --n_hparams"):
        collect(sweep({"ERM": {0: [0.5]}}), "--budget")


def test_targets_left_out_are_named(searched, record, collect):
    more = [
        record("AgrSum", target, 0, 0.5, dataset="PACS", hparams_seed=seed)
        for target in (0, 1)
        for seed in (0, 1)
    ]
    out = collect(searched + more, "--budget").out
    assert "Note: PACS: averaged without C, which some algorithms lack." in out

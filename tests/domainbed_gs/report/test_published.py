"""Published accuracies: the packaged table, and CSV files of users."""

from __future__ import annotations

from collections import Counter
from statistics import fmean

import pytest

from domainbed.errors import UsageError
from domainbed.training.config import TrainConfig
from domainbed_gs.report.published import load, plain

DATASETS = {"pacs": "acps", "vlcs": "clsv", "officehome": "acpr"}
METHODS = ("erm", "agrsum", "agrrand", "pcgrad", "irm", "mldg", "mixup", "groupdro")


def test_the_papers_table_is_complete_and_its_averages_are_right_except_the_marked_misprint():
    table = load("iccv2021", "iccv2021")
    expected = {(name, target, m) for name, own in DATASETS.items() for target in own for m in METHODS}
    averages = {(name, "avg", method) for name in DATASETS for method in METHODS}
    assert set(table.cells) == expected | averages
    assert all((cell.std is None) == (key in averages) for key, cell in table.cells.items())
    noted = [key for key, cell in table.cells.items() if cell.note]
    assert noted == [("officehome", "p", "agrsum")]
    for name, target, method in averages:
        mean = fmean(table.cells[name, own, method].mean for own in DATASETS[name])
        off = abs(mean - table.cells[name, target, method].mean)
        assert (
            off == pytest.approx(0.1, abs=0.005)
            if (name, method) == ("officehome", "agrsum")
            else off < 0.0051
        )


def test_numbers_of_wins_agree_with_the_papers_text():
    cells = load("iccv2021", "iccv2021").cells
    rows = [
        {m: cells[name, target, m].mean for m in METHODS} for name, own in DATASETS.items() for target in own
    ]
    best = Counter(max(row, key=row.get) for row in rows)
    assert best == {"agrsum": 6, "mixup": 2, "agrrand": 1, "pcgrad": 1, "irm": 1, "erm": 1}


def test_settings_name_existing_flags():
    table = load("iccv2021", "iccv2021")
    assert table.trials == 20
    assert set(table.args) <= set(TrainConfig().recorded())
    assert table.title.startswith("Table 1")


@pytest.mark.parametrize(
    ("name", "known"),
    [
        ("Agr-Sum", "agrsum"),
        ("Deep-All", "erm"),
        ("DRO", "groupdro"),
        ("Real World", "realworld"),
        ("Avg", "avg"),
    ],
)
def test_names_are_compared_without_case_and_punctuation(name, known):
    assert plain(name) == known


def test_own_csv(tmp_path):
    path = tmp_path / "mine.csv"
    path.write_text("method,dataset,target,mean\nERM,VLCS,Caltech101,98.0\n")
    table = load(str(path), "iccv2021")
    assert (table.title, table.trials, table.selection, table.args) == (str(path), None, (), {})
    cell = table.cells["vlcs", "caltech101", "erm"]
    assert (cell.mean, cell.std, cell.note) == (98.0, None, "")
    (tmp_path / "mine.toml").write_text('title = "Mine"\ntrials = 3\n[hparams]\nlr = 0.1\n')
    assert (
        load(str(path), "iccv2021").title,
        load(str(path), "iccv2021").trials,
        load(str(path), "iccv2021").hparams,
    ) == (
        "Mine",
        3,
        {"lr": 0.1},
    )


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("dataset,method,mean\n", "has no column target"),
        ("dataset,target,method,mean\nPACS,A,ERM,high\n", "line 2: mean and std must be numbers"),
        ("dataset,target,method,mean,std\nPACS,A,ERM,1,\nPACS,A,ERM,1,x\n", "line 3: mean and std"),
    ],
)
def test_a_bad_csv_is_refused(tmp_path, text, message):
    (tmp_path / "bad.csv").write_text(text)
    with pytest.raises(UsageError, match=message):
        load(str(tmp_path / "bad.csv"), "iccv2021")


def test_unknown_names_and_bad_toml(tmp_path):
    with pytest.raises(UsageError, match="neither a packaged table nor a CSV file") as caught:
        load("iccv2012", "iccv2021")
    assert caught.value.__notes__ == ["Did you mean iccv2021?"]
    (tmp_path / "a.csv").write_text("dataset,target,method,mean\n")
    (tmp_path / "a.toml").write_text("trials = ")
    with pytest.raises(UsageError, match=r"cannot read .*a\.toml, which describes the published"):
        load(str(tmp_path / "a.csv"), "iccv2021")

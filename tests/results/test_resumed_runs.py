import copy
from pathlib import Path

import pytest

from domainbed.records.results_file import ResultsFile
from domainbed.records.sweep_records import RunRecords
from domainbed.results.resumed_runs import complete_resumed_runs

FIRST = {
    "step": 0,
    "args": {"dataset": "photos", "steps": 4, "output_dir": "sweep/run"},
    "hparams": {"lr": 0.1, "zero_agrees": False},
    "data": {"checksum": "c", "version": 1},
}
LAST = {
    "step": 3,
    "args": {"dataset": "photos", "steps": 4, "output_dir": "/abs/sweep/run", "classes": "same"},
    "hparams": {"lr": 0.1},
    "data": {"checksum": "c", "version": 1, "skipped": {}},
    "environments": ["art", "photo"],
}


def completed(*records):
    found = copy.deepcopy(records)
    complete_resumed_runs([RunRecords(Path("run"), True, ResultsFile([*found]))])
    return found


def test_all_records_of_a_resumed_run_have_the_settings_of_the_last():
    first, second, last = completed(FIRST, {**FIRST, "step": 2}, LAST)
    assert [first["step"], second["step"]] == [0, 2]
    for record in (first, second):
        assert {**record, "step": 3} == LAST == last


@pytest.mark.parametrize(
    ("key", "value"),
    [
        ("data", {"checksum": "other", "version": 1}),
        ("args", {**FIRST["args"], "steps": 5}),
        ("hparams", {"lr": 0.2}),
        ("environments", ["art", "Aphoto"]),
    ],
)
def test_records_that_contradict_the_last_stay_as_they_are(key, value):
    other = {**FIRST, key: value}
    assert completed(other, LAST) == (other, LAST)


def test_records_of_other_runs_stay_as_they_are():
    assert completed(FIRST, {**FIRST, "step": 2}) == (FIRST, {**FIRST, "step": 2})

"""Notes and errors for sweeps that are unfinished, damaged, of unknown datasets, or in the wrong place."""

from __future__ import annotations

import json

import pytest

from domainbed.errors import RunError, UsageError
from domainbed.model_selection import UPSTREAM as METHODS
from domainbed.scripts import collect_results


def test_notes_on_a_partial_sweep(vlcs, tmp_path, capsys, caplog):
    vlcs.drop_some()
    sweep = vlcs.write(tmp_path / "sweep")
    jobs = {vlcs.folder(key): {} for key in vlcs.runs} | {"missing": {}}
    (sweep / "sweep.json").write_text(json.dumps({"jobs": jobs, "selection": []}))
    folders = sorted(folder for folder in sweep.iterdir() if folder.is_dir())
    (folders[0] / "done").unlink()
    with (folders[1] / "results.jsonl").open("a") as file:
        file.write('{"args": {"algor')
    lines = (folders[2] / "results.jsonl").read_text().splitlines(keepends=True)
    (folders[2] / "results.jsonl").write_text("".join(["garbage\n", *lines[:2], "[1]\n", *lines[2:]]))
    collect_results.main(["--input_dir", str(sweep)])
    out, err = capsys.readouterr()
    assert out == vlcs.expected_text()
    notes = [line for line in err.splitlines() if line.startswith("note: ")]
    alone = "not recorded (the method needs a run that holds out this target alone, "
    pairs = "these runs hold out 2 environments each)"
    needs = {
        "iid": f"{alone}with its accuracy on in-splits; {pairs}",
        "loo": f"{alone}and one for each source that holds out this source too; {pairs}",
        "oracle": f"{alone}with its accuracies on the in-split and the out-split; {pairs}",
    }
    of_pairs = needs["loo"].replace(f"; {pairs}", ")")
    assert notes == [
        *(f"note: cells without a result (X), {needs[m]}: ERM on VLCS, target L ({m})" for m in METHODS),
        f"note: cells with missing trials, {needs['iid']}: ERM on VLCS, target S, trial 1 (iid)",
        f"note: cells with missing trials, {of_pairs}: ERM on VLCS, target C, trial 1 (loo), ERM on VLCS, "
        "target V, trial 1 (loo)",
        f"note: cells with missing trials, {needs['loo']}: ERM on VLCS, target S, trial 1 (loo)",
        f"note: cells with missing trials, {needs['oracle']}: ERM on VLCS, target S, trial 1 (oracle)",
    ]
    assert [
        record.getMessage()
        for record in caplog.records
        if record.name.startswith(("domainbed.records", "domainbed.results"))
    ] == [
        f"warning: skipped a last line that was cut short: {folders[1]}/results.jsonl:6",
        f"warning: skipped lines that are not records (not valid JSON): {folders[2]}/results.jsonl:1",
        f"warning: skipped lines that are not records (not a JSON object): {folders[2]}/results.jsonl:4",
        "note: 1 of 31 runs are unfinished (no file `done`): included with their records so far "
        "(see --finished_only)",
        "note: 1 of the 32 runs in sweep.json have no records yet",
    ]


def test_a_damaged_sweep_file_is_only_a_warning(vlcs, tmp_path, capsys, caplog):
    sweep = vlcs.write(tmp_path / "sweep")
    (sweep / "sweep.json").write_text("{")
    collect_results.main(["--input_dir", str(sweep)])
    assert capsys.readouterr().out == vlcs.expected_text()
    assert "sweep.json is damaged" in caplog.text


def test_rows_and_tables_are_in_upstreams_order_with_unknown_ones_last(vlcs, tmp_path, capsys):
    for dataset, algorithm in (("my/photos", "Zzz"), ("PACS", "ERM"), ("VLCS", "CORAL"), ("VLCS", "ERM")):
        vlcs.dataset, vlcs.algorithm = dataset, algorithm
        vlcs.write(tmp_path / "sweep")
    vlcs.dataset = "nothing_known"
    key = (0, (0,), 0)
    record = {k: v for k, v in vlcs.records(key, "x")[0].items() if not k.startswith("env")}
    (tmp_path / "sweep" / "bare").mkdir()
    (tmp_path / "sweep" / "bare" / "results.jsonl").write_text(json.dumps(record) + "\n")
    collect_results.main(["--input_dir", str(tmp_path / "sweep"), "--selection", "iid"])
    out, err = capsys.readouterr()
    lines = out.splitlines()
    headers = [line.split(",")[0] for line in lines if line.startswith("---")]
    assert headers == [
        "-------- Dataset: VLCS",
        "-------- Dataset: PACS",
        "-------- Dataset: my/photos",
        "-------- Averages",
    ]
    assert [line.split()[0] for line in lines[4:7]] == ["ERM", "CORAL", "Zzz"]
    photos = lines[lines.index(next(line for line in lines if "my/photos" in line)) + 1 :]
    assert photos[0].split() == ["Algorithm", "env0", "env1", "env2", "env3", "Avg"]
    assert photos[1].split() == ["ERM", "X", "X", "X", "X", "X"]
    assert photos[3].split()[-1] != "X"
    assert "note: datasets not registered in domainbed.datasets, listed last: my/photos" in err
    assert "omitted because the records do not tell how many environments they have: nothing_known" in err


def test_a_folder_that_cannot_be_written(vlcs, tmp_path, capsys):
    sweep = vlcs.write(tmp_path / "sweep")
    (tmp_path / "file").write_text("")
    assert collect_results.main(["--input_dir", str(sweep), "--output_dir", str(tmp_path / "file")]) == 0
    out, err = capsys.readouterr()
    assert out == vlcs.expected_text()
    assert "warning: cannot write" in err
    assert (
        collect_results.main(["--input_dir", str(sweep), "--output_dir", str(tmp_path / "new" / "place")])
        == 0
    )
    assert (tmp_path / "new" / "place" / "results.txt").read_text() == out
    assert not (sweep / "results.txt").exists()


def test_the_folder_of_one_run_is_recognised(vlcs, tmp_path):
    sweep = vlcs.write(tmp_path / "sweep")
    run = next(sweep.iterdir())
    with pytest.raises(RunError, match="folder of one run"):
        collect_results.main(["--input_dir", str(run)])
    with pytest.raises(UsageError, match="does not exist"):
        collect_results.main(["--input_dir", str(run / "done")])


def test_finished_only(vlcs, tmp_path, capsys):
    sweep = vlcs.write(tmp_path / "sweep")
    unfinished = [(0, (0,), 0), (1, (2,), 1)]
    for key in unfinished:
        (sweep / vlcs.folder(key) / "done").unlink()
    collect_results.main(["--input_dir", str(sweep), "--finished_only"])
    vlcs.drop(*unfinished)
    assert capsys.readouterr().out == vlcs.expected_text()
    for done in sweep.glob("*/done"):
        done.unlink()
    with pytest.raises(RunError, match="no finished run found"):
        collect_results.main(["--input_dir", str(sweep), "--finished_only"])


def test_lines_that_are_no_records_are_counted_by_kind(vlcs, tmp_path, capsys, caplog):
    """Records of another program, which lack trial_seed, and one line that is not JSON."""
    sweep = vlcs.write(tmp_path / "sweep")
    run = sweep / vlcs.folder((0, (0,), 0))
    lines = (run / "results.jsonl").read_text()
    foreign = json.dumps({"step": 0, "args": {"dataset": "VLCS", "algorithm": "ERM"}}) + "\n"
    (run / "results.jsonl").write_text("oops\n" + 12 * foreign + lines)
    collect_results.main(["--input_dir", str(sweep)])
    assert capsys.readouterr().out == vlcs.expected_text()
    warnings = [each.getMessage() for each in caplog.records if "not records" in each.getMessage()]
    file = run / "results.jsonl"
    listed = ", ".join(f"{file}:{number}" for number in range(2, 12))
    assert warnings == [
        f"warning: skipped lines that are not records (not valid JSON): {file}:1",
        f'warning: skipped lines that are not records (args: no "trial_seed"), 12 in all: {listed}'
        " and 2 more",
    ]

"""Notes and errors for sweeps that are unfinished, damaged, of unknown datasets, or in the wrong place."""

from __future__ import annotations

import json

import pytest

from domainbed.errors import RunError, UsageError
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
    assert notes == [
        "note: cells with missing trials: iid 1, loo 3, oracle 1",
        "note: averages with missing environments (compare only averages over the same environments): "
        "iid 1, loo 1, oracle 1",
        "note: cells without a result (X), not recorded (the method needs a run that holds out this target "
        "alone, with its accuracy on in-splits; these runs hold out 2 environments each): ERM on VLCS, "
        "target L (iid)",
        "note: cells without a result (X), not recorded (the method needs a run that holds out this target "
        "alone, and one for each source that holds out this source too; these runs hold out 2 environments "
        "each): ERM on VLCS, target L (loo)",
        "note: cells without a result (X), not recorded (the method needs a run that holds out this target "
        "alone, with its accuracies on the in-split and the out-split; these runs hold out 2 environments "
        "each): ERM on VLCS, target L (oracle)",
    ]
    assert [
        record.getMessage()
        for record in caplog.records
        if record.name.startswith(("domainbed.records", "domainbed.results"))
    ] == [
        f"warning: skipped a last line that was cut short: {folders[1]}/results.jsonl:6",
        f"warning: skipped lines that are not records: {folders[2]}/results.jsonl:1,"
        f" {folders[2]}/results.jsonl:4",
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

"""The report as a whole, byte for byte, for complete and partial sweeps; the script and the function."""

from __future__ import annotations

import csv
import io
import json
import os
import re
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from domainbed.errors import UnknownName, UsageError
from domainbed.model_selection import METHODS
from domainbed.results import collect
from domainbed.scripts import collect_results, list_top_hparams

REPOSITORY = Path(__file__).parents[2]


def script(*arguments, check=True):
    done = subprocess.run(
        [sys.executable, "-m", "domainbed.scripts.collect_results", *map(str, arguments)],
        cwd=REPOSITORY,
        capture_output=True,
        text=True,
    )
    assert not check or done.returncode == 0, done.stderr
    return done


@pytest.mark.parametrize(
    ("partial", "evaluate"),
    [(False, "all"), (True, "all"), (False, "selection"), (True, "selection")],
    ids=lambda value: {False: "complete", True: "partial"}.get(value, value),
)
def test_layout_byte_for_byte(vlcs, tmp_path, capsys, partial, evaluate):
    vlcs.evaluate = evaluate
    if partial:
        vlcs.drop_some()
    sweep = vlcs.write(tmp_path / "sweep")
    (sweep / "results.txt").write_text("an old report is not a run")
    assert collect_results.main(["--input_dir", str(sweep)]) == 0
    text, err = capsys.readouterr()
    assert text == vlcs.expected_text()
    assert (sweep / "results.txt").read_text() == text
    assert ("X" in text) == partial
    assert all(vlcs.absent(method) in " ".join(err.split()) for method in METHODS)
    assert ("targets with results of some algorithm" in err) == partial
    assert ("* Averages over the targets that each trial has. ERM on VLCS lacks S" in text) == partial
    assert collect_results.main(["--input_dir", str(sweep), "--latex"]) == 0
    latex = capsys.readouterr().out
    assert latex == vlcs.expected_latex()
    assert (sweep / "results.tex").read_text() == latex


def test_as_a_process(vlcs, tmp_path):
    sweep = vlcs.write(tmp_path / "sweep")
    done = script("--input", sweep)
    assert done.stdout == vlcs.expected_text()
    assert "note:" not in done.stderr
    printed = " ".join(done.stderr.split())
    for method in ("iid", "loo", "oracle"):
        assert vlcs.footer(method, averages=False) in printed
        assert vlcs.footer(method, averages=True) in printed
    assert "Total records: 200" in (sweep / "results.txt").read_text()
    bad = script("--input_dir", tmp_path / "nowhere", check=False)
    assert (bad.returncode, bad.stdout) == (2, "")
    assert bad.stderr.strip().splitlines()[-1].startswith("error: sweep directory")
    (tmp_path / "empty").mkdir()
    bad = script("--input_dir", tmp_path / "empty", check=False)
    assert bad.returncode == 1
    assert "error: no record found" in bad.stderr


def test_the_function_does_what_the_script_does(vlcs, tmp_path, capsys):
    sweep = vlcs.write(tmp_path / "sweep")
    page, best = tmp_path / "page.html", tmp_path / "best.toml"
    collect.collect_results(sweep, output_dir=tmp_path, html=page, relaunch_best=best)
    out, err = capsys.readouterr()
    assert out == vlcs.expected_text() == (tmp_path / "results.txt").read_text()
    assert f"Page: {page}\nWrote the best settings to {best}. To run them:\n    python -m " in err
    assert "Command that made this page:" not in page.read_text()  # which no command line made
    flags = ["--input_dir", str(sweep), "--output_dir", str(tmp_path)]
    again = tmp_path / "again.html"
    collect_results.main([*flags, "--html", str(again)])
    assert re.sub("<p>Command that made this page:.*\n.*</pre>\n", "", again.read_text()) == page.read_text()
    capsys.readouterr()
    collect.collect_results(sweep, selection=["oracle"], format="csv", output_dir=tmp_path)
    of_function = capsys.readouterr()
    collect_results.main([*flags, "--selection", "oracle", "--format", "csv"])
    assert capsys.readouterr() == of_function


def test_abbreviations_and_exclusive_flags(vlcs, tmp_path, capsys):
    sweep = str(vlcs.write(tmp_path / "sweep"))
    assert collect_results.main([f"--in={sweep}", "--lat"]) == 0
    assert capsys.readouterr().out.startswith("\\documentclass")
    assert collect_results.main(["--input", sweep, "--auto"]) == 0
    assert "auto lr training-domain validation set" in capsys.readouterr().out
    for both in (["--latex", "--format", "csv"], ["--auto_lr", "--selection", "iid"]):
        with pytest.raises(SystemExit) as bad:
            collect_results.main(["--input_dir", sweep, *both])
        assert bad.value.code == 2


def test_csv_is_one_tidy_table(vlcs, tmp_path, capsys):
    vlcs.drop_some()
    sweep = vlcs.write(tmp_path / "sweep")
    collect_results.main(["--input_dir", str(sweep), "--format", "csv", "--selection", "oracle", "iid"])
    text = capsys.readouterr().out
    assert (sweep / "results.csv").read_text() == text
    rows = list(csv.DictReader(io.StringIO(text)))
    assert [row["environment"] for row in rows] == ["C", "L", "S", "V", "Avg"] * 2
    assert [row["selection"] for row in rows] == ["oracle"] * 5 + ["iid"] * 5
    for target, row in zip((0, 1, 2, 3), rows[5:], strict=False):
        accs = [vlcs.chosen(trial, target, "iid") for trial in (0, 1)]
        accs = [acc for acc in accs if acc is not None]
        assert int(row["n"]) == len(accs)
        assert (row["dataset"], row["algorithm"]) == ("VLCS", "ERM")
        if accs:
            assert float(row["mean"]) == pytest.approx(100 * np.mean(accs), rel=1e-14)
            assert float(row["stderr"]) == pytest.approx(100 * np.std(accs) / len(accs) ** 0.5, abs=1e-12)
        else:
            assert (row["mean"], row["stderr"]) == ("", "")
    (average, _) = vlcs.expected_cells("iid", upstream=False)[1]
    found = f"{float(rows[-1]['mean']):.1f} +/- {float(rows[-1]['stderr']):.1f}"
    assert average == f"{found} ({rows[-1]['n']} of 2 trials)"


def test_markdown_has_the_cells_of_the_text(vlcs, tmp_path, capsys):
    sweep = vlcs.write(tmp_path / "sweep")
    collect_results.main(["--input_dir", str(sweep), "--format", "markdown", "--selection", "loo"])
    row, averages = vlcs.expected_cells("loo")
    assert capsys.readouterr().out.splitlines() == [
        "Total records: 200",
        "",
        f"### Dataset: VLCS, model selection method: {METHODS['loo'].name}",
        "",
        "| Algorithm | C | L | S | V | Avg |",
        "| --- | ---: | ---: | ---: | ---: | ---: |",
        f"| ERM | {' | '.join(row)} |",
        "",
        f"*{vlcs.footer('loo', averages=False)}*",
        "",
        f"### Averages, model selection method: {METHODS['loo'].name}",
        "",
        "| Algorithm | VLCS | Avg |",
        "| --- | ---: | ---: |",
        f"| ERM | {' | '.join(averages)} |",
        "",
        f"*{vlcs.footer('loo', averages=True)}*",
    ]


def test_incomplete_averages_are_marked_in_markdown_and_csv(vlcs, tmp_path, capsys):
    vlcs.drop_some()
    flags = ["--input_dir", str(vlcs.write(tmp_path / "sweep")), "--selection", "iid", "--format"]
    collect_results.main([*flags, "markdown"])
    out = capsys.readouterr().out
    _, (average, total) = vlcs.expected_cells("iid", upstream=False)
    assert f"| ERM | {average}† | {total}† |" in out
    assert f"*† {vlcs.incomplete('iid', upstream=False)}*" in out
    assert f"*† {vlcs.absent('iid')}*" in out
    collect_results.main([*flags, "csv"])
    out, err = capsys.readouterr()
    missing = {row["environment"]: row["missing"] for row in csv.DictReader(io.StringIO(out))}
    reason = (
        "not recorded (the method needs a run that holds out this target alone, with its accuracy on "
        "in-splits; these runs hold out 2 environments each)"
    )
    assert missing == {"C": "", "L": reason, "S": "", "V": "", "Avg": "L; S (trial 1)"}
    assert f"iid: {vlcs.incomplete('iid', upstream=False)}" in " ".join(err.split())


def test_selection_of_the_sweep_file_and_of_the_command_line(vlcs, tmp_path, capsys):
    sweep = vlcs.write(tmp_path / "sweep")
    (sweep / "sweep.json").write_text(json.dumps({"jobs": {}, "selection": ["oracle"]}))
    collect_results.main(["--input_dir", str(sweep)])
    text = capsys.readouterr().out
    assert METHODS["oracle"].name in text
    assert METHODS["iid"].name not in text
    collect_results.main(["--input_dir", str(sweep), "--selection", "iid"])
    assert METHODS["oracle"].name not in capsys.readouterr().out
    with pytest.raises(UnknownName) as unknown:
        collect_results.main(["--input_dir", str(sweep), "--selection", "orcale"])
    assert "oracle" in "".join(unknown.value.__notes__)


def test_latex_widens_columns_for_long_names_and_escapes_them(vlcs, tmp_path, capsys):
    vlcs.dataset, vlcs.algorithm = "SpawriousO2O_like_data", "IB_ERM"
    sweep = vlcs.write(tmp_path / "sweep")
    collect_results.main(["--input_dir", str(sweep), "--latex", "--selection", "iid"])
    lines = capsys.readouterr().out.splitlines()
    assert "\\subsubsection{SpawriousO2O\\_like\\_data}" in lines
    header = next(line for line in lines if "\\textbf{Spawrious" in line)
    assert header == (
        "\\textbf{Algorithm}                & \\textbf{SpawriousO2O\\_like\\_data} & "
        "\\textbf{Avg}                      \\\\"
    )
    assert any(line.startswith("IB\\_ERM ") for line in lines)


def test_tables_go_to_a_replaced_stdout(vlcs, tmp_path, monkeypatch):
    vlcs.write(tmp_path)
    replaced = io.StringIO()
    monkeypatch.setattr(sys, "stdout", replaced)
    collect_results.main(["--input_dir", str(tmp_path)])
    assert replaced.getvalue() == vlcs.expected_text()


def test_heavy_libraries_are_not_imported(vlcs, tmp_path):
    sweep = vlcs.write(tmp_path / "sweep")
    code = (
        "import sys\n"
        "from domainbed.scripts import collect_results, list_top_hparams\n"
        f"collect_results.main(['--input_dir', {str(sweep)!r}])\n"
        f"list_top_hparams.main(['--input_dir', {str(sweep)!r}, '--dataset', 'VLCS', '--algorithm', 'ERM',"
        " '--test_env', '1'])\n"
        "heavy = {'torch', 'torchvision', 'pandas', 'scipy', 'matplotlib', 'wilds', 'timm'}\n"
        "heavy &= set(sys.modules)\n"
        "sys.exit(f'imported: {heavy}' if heavy else 0)\n"
    )
    done = subprocess.run([sys.executable, "-c", code], cwd=REPOSITORY, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr[-500:]


def auto_lr_record(seed, step, holdout, **accuracies):
    args = {"dataset": "VLCS", "algorithm": "ERMPlusPlus", "trial_seed": 0, "hparams_seed": seed}
    args |= {"test_envs": [0], "holdout_fraction": holdout, "hparams": None, "data_dir": "/d"}
    return {"args": args, "hparams": {}, "step": step, **accuracies}


def test_auto_lr_merges_the_two_stages(tmp_path, capsys):
    """Seed 1 has the larger out-accuracies at its last step, so its second stage is reported."""
    for seed, out, final in ((0, 0.6, 0.9), (1, 0.7, 0.8125)):
        (tmp_path / str(seed)).mkdir()
        stages = [
            auto_lr_record(seed, 0, 0.2, env0_in_acc=0.1, env0_out_acc=0.9, env1_out_acc=0.99),
            auto_lr_record(seed, 100, 0.2, env0_in_acc=0.2, env0_out_acc=0.9, env1_out_acc=out),
            auto_lr_record(seed, 0, 0.0, fd_env0_in_acc=0.3),
            auto_lr_record(seed, 100, 0.0, fd_env0_in_acc=final),
        ]
        text = "".join(json.dumps(record) + "\n" for record in stages)
        (tmp_path / str(seed) / "results.jsonl").write_text(text)
    collect_results.main(["--input_dir", str(tmp_path), "--auto_lr"])
    lines = capsys.readouterr().out.splitlines()
    assert "auto lr training-domain validation set" in lines[2]
    assert lines[4].split()[:4] == ["ERMPlusPlus", "81.2", "+/-", "0.0"]
    assert sum(line.startswith("--------") for line in lines) == 2
    arguments = [
        "--dataset",
        "VLCS",
        "--algorithm",
        "ERMPlusPlus",
        "--test_env",
        "0",
        "--selection",
        "autolr",
    ]
    list_top_hparams.main(["--input_dir", str(tmp_path), *arguments])
    listed = [line.strip() for line in capsys.readouterr().out.splitlines() if "val_acc" in line]
    assert listed == ["{'val_acc': 0.7, 'test_acc': 0.8125}", "{'val_acc': 0.6, 'test_acc': 0.9}"]


def test_remove_key_copies_and_raises():
    original = {"a": 1, "b": 2}
    assert collect_results.remove_key(original, "a") == {"b": 2}
    assert original == {"a": 1, "b": 2}
    with pytest.raises(KeyError):
        collect_results.remove_key(original, "c")


def test_a_reader_that_leaves_early_gets_whole_files(vlcs, tmp_path):
    """`collect_results --html page.html | head -1`."""
    sweep, page, best = vlcs.write(tmp_path / "sweep"), tmp_path / "page.html", tmp_path / "best.toml"
    command = [sys.executable, "-m", "domainbed.scripts.collect_results", "--input_dir", sweep]
    with (tmp_path / "err.txt").open("wb") as err:
        process = subprocess.Popen(
            [*map(str, command), "--html", str(page), "--relaunch_best", str(best)],
            cwd=REPOSITORY,
            stdout=subprocess.PIPE,
            stderr=err,
        )
        process.stdout.close()
        assert process.wait(timeout=120) == 141
    assert page.read_text().rstrip().endswith("</html>")
    assert (sweep / "results.txt").read_text() == vlcs.expected_text()
    assert best.exists()
    assert "Traceback" not in (tmp_path / "err.txt").read_text()


def test_a_page_is_written_to_a_file_only(tmp_path):
    os.mkfifo(tmp_path / "pipe")
    for place in (
        tmp_path,
        tmp_path / "pipe",
        Path("/dev/stdout"),
        Path("/dev/null"),
        Path("/dev/../dev/fd/1"),
    ):
        with pytest.raises(UsageError, match="is not a file; name one"):
            collect.check_page_path(place)
    collect.check_page_path(tmp_path / "new.html")
    with pytest.raises(UsageError, match="is not a file"):
        collect.collect_results(tmp_path, html=tmp_path / "pipe")

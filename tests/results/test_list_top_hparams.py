from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from domainbed.errors import RunError
from domainbed.scripts import list_top_hparams

REPOSITORY = Path(__file__).parents[2]
NAMES = [
    "training-domain validation set",
    "leave-one-domain-out cross-validation",
    "test-domain validation set (oracle)",
]


def expected_method(sweep, method, target):
    """The listing of one method, from the arrays; trials and folders in order of the folders' names."""
    lines = []
    order = sorted(sweep.runs, key=sweep.folder)
    trials = list(dict.fromkeys(trial for trial, targets, _ in order if target in targets))
    sources = [e for e in range(4) if e != target]
    for trial in trials:
        lines.append(f"trial_seed: {trial}")
        entries = []
        for seed in (0, 1):
            inside, outside = sweep.runs[trial, (target,), seed]
            if method == 0:
                val = [float(np.mean([row[e] for e in sources])) for row in outside]
            elif method == 1:
                pairs = [sweep.runs[trial, tuple(sorted((target, v))), seed] for v in sources]
                val = [
                    float(np.sum([pair[0, s, v] for pair, v in zip(pairs, sources, strict=True)]) / 3)
                    for s in range(5)
                ]
            else:
                val = [-1.0] * 4 + [float(outside[-1, target])]
            step = int(np.argmax(val))
            entries.append((val[step], seed, float(inside[step, target])))
        for val, seed, test in sorted(entries, reverse=True):
            lines.append(f"\t{{'val_acc': {val!r}, 'test_acc': {test!r}}}")
            lines.append("\t\thparams:")
            values = {"batch_size": [32, 17][seed], "lr": ["5e-05", "0.0001"][seed], "resnet18": False}
            lines += [f"\t\t\t{name}: {value}" for name, value in values.items()]
            lines.append("\t\toutput_dirs:")
            members = [key for key in order if key[0] == trial and target in key[1] and key[2] == seed]
            lines += [f"\t\t\tsweep/{sweep.folder(key)}" for key in members]
    return lines


def test_listing_line_by_line(vlcs, tmp_path):
    sweep = vlcs.write(tmp_path / "sweep")
    arguments = ["--input_dir", sweep, "--dataset", "VLCS", "--algorithm", "ERM", "--test_env", "2"]
    done = subprocess.run(
        [sys.executable, "-m", "domainbed.scripts.list_top_hparams", *map(str, arguments)],
        cwd=REPOSITORY,
        capture_output=True,
        text=True,
    )
    expected = ["Total records: 200"]
    for method, name in enumerate(NAMES):
        expected += [f"Model selection: {name}", *expected_method(vlcs, method, target=2)]
    assert done.stdout.splitlines() == expected
    assert done.returncode == 0


@pytest.mark.parametrize("flag", ["--test_envs", "--test_env", "--test"])
def test_flag_of_train_is_accepted(vlcs, tmp_path, capsys, flag):
    sweep = vlcs.write(tmp_path / "sweep")
    arguments = ["--input", str(sweep), "--data", "VLCS", "--algo", "ERM", flag, "0", "--selection", "oracle"]
    assert list_top_hparams.main(arguments) == 0
    assert capsys.readouterr().out.splitlines()[1:] == [
        f"Model selection: {NAMES[2]}",
        *expected_method(vlcs, 2, target=0),
    ]


def test_nothing_to_list_names_what_there_is(vlcs, tmp_path):
    sweep = vlcs.write(tmp_path / "sweep")
    with pytest.raises(RunError, match="no records of EMR on VLCS with target 0; there are: ERM on VLCS"):
        list_top_hparams.main(
            ["--input_dir", str(sweep), "--dataset", "VLCS", "--algorithm", "EMR", "--test_env", "0"]
        )


def test_different_hparams_under_one_seed_are_refused(vlcs, tmp_path):
    sweep = vlcs.write(tmp_path / "sweep")
    results = sweep / vlcs.folder((0, (0, 1), 1)) / "results.jsonl"
    lines = [json.loads(line) for line in results.read_text().splitlines()]
    for record in lines:
        record["hparams"]["lr"] = 0.5
    results.write_text("".join(json.dumps(record) + "\n" for record in lines))
    with pytest.raises(RunError, match="different hyper-parameters"):
        list_top_hparams.main(
            ["--input_dir", str(sweep), "--dataset", "VLCS", "--algorithm", "ERM", "--test_env", "1"]
        )

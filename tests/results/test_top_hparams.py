from __future__ import annotations

import json
import shlex
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from domainbed.errors import RunError, UsageError
from domainbed.results import top_hparams
from domainbed.scripts import list_top_hparams
from domainbed.training import train_command

REPOSITORY = Path(__file__).parents[2]
NAMES = [
    "training-domain validation set",
    "leave-one-domain-out cross-validation",
    "test-domain validation set (oracle)",
]


def expected_method(sweep, method, target):
    """The list of one method, computed from the arrays. Trials and folders are sorted by folder name."""
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
    lines = done.stdout.splitlines()
    assert lines[: len(expected)] == expected
    headings = [line for line in lines[len(expected) :] if not line.startswith("python ")]
    assert headings == [f"Commands to rerun the best, selected by {name}:" for name in NAMES]
    assert done.returncode == 0


@pytest.mark.parametrize("flag", ["--test_envs", "--test_env", "--test"])
def test_flag_of_train_is_accepted(vlcs, tmp_path, capsys, flag):
    sweep = vlcs.write(tmp_path / "sweep")
    arguments = ["--input", str(sweep), "--data", "VLCS", "--algo", "ERM", flag, "0", "--selection", "oracle"]
    assert list_top_hparams.main(arguments) == 0
    listing, _, _ = capsys.readouterr().out.partition("Commands to rerun")
    assert listing.splitlines()[1:] == [f"Model selection: {NAMES[2]}", *expected_method(vlcs, 2, target=0)]


def test_the_function_does_what_the_script_does(vlcs, tmp_path, capsys):
    sweep = vlcs.write(tmp_path / "sweep")
    top_hparams.list_top_hparams(sweep, dataset="VLCS", algorithm="ERM", test_env=1, selection=["iid"])
    of_function = capsys.readouterr().out
    arguments = ["--dataset", "VLCS", "--algorithm", "ERM", "--test_env", "1", "--selection", "iid"]
    list_top_hparams.main(["--input_dir", str(sweep), *arguments])
    assert of_function == capsys.readouterr().out


@pytest.mark.parametrize("name", ["S", "sun09"])
def test_the_target_may_be_named(vlcs, tmp_path, capsys, name):
    arguments = [
        "--input_dir",
        str(vlcs.write(tmp_path / "sweep")),
        "--dataset",
        "VLCS",
        "--algorithm",
        "ERM",
    ]
    printed = []
    for given in (name, "2"):
        list_top_hparams.main([*arguments, "--test_env", given])
        printed.append(capsys.readouterr().out)
    assert printed[0] == printed[1] != ""
    with pytest.raises(UsageError, match="--test_envs SUM09: VLCS has no such environment"):
        list_top_hparams.main([*arguments, "--test_env", "SUM09"])


def test_the_best_are_commands_with_their_hyperparameters(vlcs, tmp_path, capsys):
    sweep = vlcs.write(tmp_path / "sweep")
    arguments = ["--dataset", "VLCS", "--algorithm", "ERM", "--test_env", "3", "--selection", "iid"]
    assert list_top_hparams.main(["--input_dir", str(sweep), *arguments]) == 0
    commands = capsys.readouterr().out.partition("Commands to rerun")[2].splitlines()[1:]
    flags = [vars(train_command.build_parser().parse_args(shlex.split(command)[3:])) for command in commands]
    assert {each["trial_seed"] for each in flags} == {0, 1}
    for each in flags:
        (record, *_) = vlcs.records((each["trial_seed"], (3,), each["hparams_seed"]), "")
        assert json.loads(each["hparams"]) == record["hparams"]
        assert each["output_dir"] == f"winners/iid/VLCS-ERM-3-trial{each['trial_seed']}"
        same = ("dataset", "algorithm", "test_envs", "seed", "steps", "holdout_fraction", "data_dir")
        assert {name: each[name] for name in same} == {name: record["args"][name] for name in same}
        best = vlcs.chosen(each["trial_seed"], 3, "iid")
        inside, outside = vlcs.runs[each["trial_seed"], (3,), each["hparams_seed"]]
        assert inside[np.argmax(np.mean(outside[:, :3], axis=1)), 3] == best


def test_the_command_of_the_best_gives_the_same_numbers(forked_script, tmp_path):
    small = ["--hparams", '{"featurizer": "small_cnn"}', "--device", "cpu", "--skip_model_save"]
    flags = ["--dataset", "Debug28", "--steps", 3, "--checkpoint_freq", 1, "--hparams_seed", 5, *small]
    assert forked_script("train", *flags, "--output_dir", "sweep/a run").returncode == 0
    where = ["--input_dir", "sweep", "--dataset", "Debug28", "--algorithm", "ERM", "--test_env", 0]
    listed = forked_script("list_top_hparams", *where, "--selection", "oracle").stdout
    again = forked_script("train", *shlex.split(listed.splitlines()[-1])[3:])
    assert again.returncode == 0, again.stderr
    before, after = (
        [json.loads(line) for line in (tmp_path / folder / "results.jsonl").read_text().splitlines()]
        for folder in ("sweep/a run", "winners/oracle/Debug28-ERM-0-trial0")
    )
    ignored = ("args", "step_time", "mem_gb")
    assert [{k: v for k, v in record.items() if k not in ignored} for record in before] == [
        {k: v for k, v in record.items() if k not in ignored} for record in after
    ]


def test_the_error_for_an_empty_list_names_what_the_sweep_has(vlcs, tmp_path):
    sweep = vlcs.write(tmp_path / "sweep")
    with pytest.raises(RunError, match="no records of EMR on VLCS with target 0; the sweep has ERM on VLCS"):
        list_top_hparams.main(
            ["--input_dir", str(sweep), "--dataset", "VLCS", "--algorithm", "EMR", "--test_env", "0"]
        )


def test_other_hparams_under_one_seed_are_a_variant_of_their_own(vlcs, tmp_path, capsys):
    sweep = vlcs.write(tmp_path / "sweep")
    results = sweep / vlcs.folder((0, (0, 1), 1)) / "results.jsonl"
    lines = [json.loads(line) for line in results.read_text().splitlines()]
    for record in lines:
        record["hparams"]["lr"] = 0.5
    results.write_text("".join(json.dumps(record) + "\n" for record in lines))
    arguments = ["--input_dir", str(sweep), "--dataset", "VLCS", "--algorithm", "ERM", "--test_env", "1"]
    list_top_hparams.main([*arguments, "--selection", "loo"])
    listed = capsys.readouterr().out.split("Commands")[0]
    assert "lr: 0.5" not in listed  # the pair alone has no result
    trial_0, trial_1 = listed.split("trial_seed: ")[1:]
    assert (trial_0.count("lr:"), trial_1.count("lr:")) == (1, 2)


def test_several_experiments_are_refused_with_the_reason_and_the_remedy(vlcs, tmp_path, capsys):
    sweep = vlcs.write(tmp_path / "sweep")
    results = sweep / vlcs.folder((0, (1,), 1)) / "results.jsonl"
    results.write_text(results.read_text().replace('"steps": 1001', '"steps": 500'))
    arguments = ["--input_dir", str(sweep), "--dataset", "VLCS", "--algorithm", "ERM", "--test_env", "1"]
    with pytest.raises(RunError, match=r"steps is 1001 \(39 runs\), 500 \(1 run\); choose one, e.g. --where"):
        list_top_hparams.main(arguments)
    assert list_top_hparams.main([*arguments, "--where", "steps=1001"]) == 0
    assert list_top_hparams.main([*arguments, "--where", "steps<1001"]) == 0
    assert "lr: 0.0001" in capsys.readouterr().out

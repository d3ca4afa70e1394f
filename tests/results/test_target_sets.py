"""Tables of runs that hold out several environments at once."""

from __future__ import annotations

import csv
import io
import json
import tomllib

import numpy as np
import pytest

from domainbed.errors import RunError, UsageError
from domainbed.model_selection import METHODS
from domainbed.results.accuracies import compute_accuracies
from domainbed.results.loading import load_sweep
from domainbed.scripts import collect_results, list_top_hparams
from domainbed.sweep.manifest import add_to_manifest
from domainbed.training.run_state import record_failure
from domainbed_gs.report.cautions import cautions
from domainbed_gs.report.comparison import compare_all

NAMES = ["art", "cartoon", "photo", "sketch"]
SIZES = (100, 200, 300, 500)
STEPS = (0, 10, 20)
PAIRS = ((0, 1), (2, 3))
SINGLE_SOURCE = ((1, 2, 3), (0, 2, 3), (0, 1, 3), (0, 1, 2))


class Sweep:
    """Two methods, three trials and two hparams seeds on sets of targets, with random accuracies.

    `runs[algorithm, trial, targets, hparams seed]` has shape (2, steps, environments): accuracies on
    in-splits and on out-splits.
    """

    def __init__(self, sets):
        random = np.random.RandomState(7)
        self.sets = sets
        self.runs = {
            (algorithm, trial, targets, seed): random.uniform(0.2, 1, (2, len(STEPS), 4))
            for algorithm in ("ERM", "AgrSum")
            for trial in range(3)
            for targets in sets
            for seed in range(2)
        }

    def write(self, root, with_manifest=True):
        jobs = {}
        for (algorithm, trial, targets, seed), (inside, outside) in self.runs.items():
            args = {"dataset": "Folder", "algorithm": algorithm, "trial_seed": trial, "hparams_seed": seed}
            args |= {"test_envs": [*targets], "seed": trial, "task": "domain_generalization", "steps": 21}
            run = root / f"{algorithm}-{trial}-{targets}-{seed}"
            run.mkdir(parents=True)
            lines = []
            for s, step in enumerate(STEPS):
                record = {"step": step, "args": args, "hparams": {"lr": [0.1, 0.2][seed]}, "step_time": 1.0}
                record |= {"environments": NAMES, "data": {"checksum": "x"}}
                record |= {f"env{i}_in_acc": inside[s, i] for i in targets}
                record |= {f"env{i}_out_acc": outside[s, i] for i in range(4)}
                record["sizes"] = {f"env{i}_{part}": SIZES[i] for i in range(4) for part in ("in", "out")}
                lines.append(json.dumps(record) + "\n")
            (run / "results.jsonl").write_text("".join(lines))
            (run / "done").write_text("done")
            jobs[run.name] = args
        if with_manifest:
            add_to_manifest(root, jobs, ("iid",), target_sets={"Folder": self.sets})
        return root

    def chosen(self, algorithm, trial, targets, method="iid"):
        """Accuracies on the targets of the run and step that one rule selects for all of them."""
        best = (-1.0, None)
        for seed in range(2):
            inside, outside = self.runs[algorithm, trial, targets, seed]
            if method == "iid":
                values = np.delete(outside, targets, axis=1).mean(axis=1)
                step = int(values.argmax())
            else:
                values, step = outside[:, targets].mean(axis=1), -1
            if values[step] >= best[0]:  # of equal seeds the larger
                best = (values[step], inside[step, list(targets)])
        return best[1]

    def trials(self, algorithm, method="iid"):
        """(trials, targets of all sets) in percent."""
        rows = [np.concatenate([self.chosen(algorithm, t, s, method) for s in self.sets]) for t in range(3)]
        return 100 * np.stack(rows)


def cell(values):
    return f"{np.mean(values):.1f} +/- {np.std(values) / np.sqrt(len(values)):.1f}"


def tables(capsys, directory, *flags):
    """Title -> label of a row -> its cells, of a report."""
    collect_results.main(["--input_dir", str(directory), "--format", "markdown", *flags])
    found, title = {}, None
    for line in capsys.readouterr().out.splitlines():
        if line.startswith("### "):
            title = line.removeprefix("### ").split(", model selection")[0].removeprefix("Dataset: ")
            found[title] = {}
        elif line.startswith("| ") and title:
            label, *cells = [each.strip() for each in line.strip("| ").split("|")]
            found[title][label] = cells
    return found


def test_a_set_has_a_table_of_its_targets_with_their_mean_pooled_and_worst_accuracy(tmp_path, capsys):
    sweep = Sweep(PAIRS)
    found = tables(capsys, sweep.write(tmp_path / "s"))
    assert list(found) == [
        "Folder",
        "Folder, targets art + cartoon",
        "Folder, targets photo + sketch",
        "Averages",
    ]
    table = found["Folder, targets photo + sketch"]
    assert table["Algorithm"] == ["photo", "sketch", "Mean", "Pooled", "Worst"]
    for algorithm in ("ERM", "AgrSum"):
        own = sweep.trials(algorithm)[:, 2:]
        pooled = np.average(own, axis=1, weights=SIZES[2:])
        columns = [own[:, 0], own[:, 1], own.mean(axis=1), pooled, own.min(axis=1)]
        assert table[algorithm] == [cell(each) for each in columns]


def test_the_table_of_a_dataset_has_the_mean_of_each_set_of_all_targets_and_the_worst_target(
    tmp_path, capsys
):
    sweep = Sweep(PAIRS)
    found = tables(capsys, sweep.write(tmp_path / "s"))
    assert found["Folder"]["Algorithm"] == ["art + cartoon", "photo + sketch", "Avg", "Worst"]
    own = sweep.trials("ERM")
    sets = [cell(own[:, :2].mean(axis=1)), cell(own[:, 2:].mean(axis=1))]
    assert found["Folder"]["ERM"] == [*sets, f"{own.mean():.1f}", cell(own.min(axis=1))]
    assert found["Averages"]["ERM"][0] == cell(own.mean(axis=1))


def test_single_source_tables_are_by_source(tmp_path, capsys):
    sweep = Sweep(SINGLE_SOURCE)
    found = tables(capsys, sweep.write(tmp_path / "s"))
    sources = [f"from {name}" for name in NAMES]
    assert found["Folder"]["Algorithm"] == [*sources, "Avg", "Worst"]
    own = sweep.trials("ERM")
    assert found["Folder"]["ERM"][1] == cell(own[:, 3:6].mean(axis=1))
    table = found["Folder, trained from cartoon"]
    assert table["Algorithm"][:3] == ["cartoon to art", "cartoon to photo", "cartoon to sketch"]
    assert table["ERM"][:3] == [cell(own[:, i]) for i in (3, 4, 5)]


def test_sets_that_overlap_keep_their_targets_apart(tmp_path, capsys):
    sweep = Sweep(((0, 1), (0, 2)))
    found = tables(capsys, sweep.write(tmp_path / "s"))
    own = sweep.trials("AgrSum")
    table = found["Folder, targets art + photo"]
    assert table["Algorithm"][:2] == ["art (art + photo)", "photo (art + photo)"]
    assert table["AgrSum"][:2] == [cell(own[:, 2]), cell(own[:, 3])]


def test_selection_on_targets_chooses_one_model_for_all_targets_of_a_set(tmp_path, capsys):
    sweep = Sweep(PAIRS)
    found = tables(capsys, sweep.write(tmp_path / "s"), "--selection", "oracle")
    for algorithm in ("ERM", "AgrSum"):
        own = sweep.trials(algorithm, "oracle")
        assert found["Folder, targets art + cartoon"][algorithm][:2] == [cell(own[:, 0]), cell(own[:, 1])]


def test_leave_one_domain_out_selection_has_no_result_for_sets(tmp_path, capsys):
    found = tables(capsys, Sweep(PAIRS).write(tmp_path / "s"), "--selection", "loo")
    assert {*found["Folder"]["ERM"]} == {"X"}


def test_csv_has_a_line_for_each_target_and_for_what_sums_them_up(tmp_path, capsys):
    sweep = Sweep(PAIRS)
    collect_results.main(["--input_dir", str(sweep.write(tmp_path / "s")), "--format", "csv"])
    rows = list(csv.DictReader(io.StringIO(capsys.readouterr().out)))
    found = {row["environment"]: float(row["mean"]) for row in rows if row["algorithm"] == "ERM"}
    own = sweep.trials("ERM")
    assert found["sketch"] == pytest.approx(own[:, 3].mean())
    assert found["photo + sketch: Mean"] == pytest.approx(own[:, 2:].mean())
    assert found["photo + sketch: Worst"] == pytest.approx(own[:, 2:].min(axis=1).mean())
    assert found["Worst"] == pytest.approx(own.min(axis=1).mean())
    assert found["Avg"] == pytest.approx(own.mean())


def test_without_sweep_json_the_flag_names_the_sets(tmp_path, capsys, caplog):
    sweep = Sweep(PAIRS)
    known = tables(capsys, sweep.write(tmp_path / "s"))
    bare = sweep.write(tmp_path / "bare", with_manifest=False)
    assert tables(capsys, bare, "--selection", "iid", "--target_sets", "0 1", "2 3") == known
    assert tables(capsys, bare, "--selection", "iid", "--target_sets", "cartoon,0", "Photo sketch") == known
    collect_results.main(["--input_dir", str(bare), "--selection", "iid"])
    assert "give --target_sets): Folder" in caplog.text
    with pytest.raises(RunError, match="holds out one of the sets of targets"):
        collect_results.main(["--input_dir", str(bare), "--target_sets", "0 2"])
    with pytest.raises(UsageError, match="--target_sets Foto: Folder has no such environment"):
        collect_results.main(["--input_dir", str(bare), "--target_sets", "Foto sketch"])


def test_runs_with_other_targets_are_left_out_and_said(tmp_path, caplog):
    sweep = Sweep(((0, 1), (2, 3), (3,)))
    directory = sweep.write(tmp_path / "s", with_manifest=False)
    collect_results.main(["--input_dir", str(directory), "--target_sets", "0 1", "2 3"])
    assert "12 runs on Folder hold out other environments than the sets" in caplog.text


def test_a_failed_run_is_the_reason_for_all_targets_of_its_set(tmp_path):
    directory = Sweep(PAIRS).write(tmp_path / "s")
    for seed in range(2):
        run = directory / f"ERM-1-{PAIRS[1]}-{seed}"
        (run / "results.jsonl").unlink()
        (run / "done").unlink()
        record_failure(run, "no memory left", 1)
    sweep = load_sweep(directory)
    accuracies = compute_accuracies(sweep.records, METHODS["iid"])
    sweep.runs.explain_missing(accuracies, METHODS["iid"])
    for target in (2, 3):
        (reason,) = accuracies.reasons("Folder", "ERM", target)
        assert str(reason) == "failed (no memory left)"
    assert not accuracies.reasons("Folder", "ERM", 0)


def test_an_average_over_incomplete_trials_is_marked(tmp_path, capsys):
    sweep = Sweep(PAIRS)
    for seed in range(2):
        del sweep.runs["ERM", 1, PAIRS[1], seed]
    found = tables(capsys, sweep.write(tmp_path / "s"))
    *_, average, worst = found["Folder"]["ERM"]
    assert average.endswith("†")
    complete = [
        np.concatenate([sweep.chosen("ERM", trial, targets) for targets in PAIRS]).min() for trial in (0, 2)
    ]
    assert worst == f"{cell(100 * np.array(complete))}†"


def test_pooled_is_left_out_where_numbers_of_images_are_not_recorded(tmp_path, capsys):
    directory = Sweep(PAIRS).write(tmp_path / "s")
    for file in directory.glob("*/results.jsonl"):
        records = [json.loads(line) for line in file.read_text().splitlines()]
        lines = [json.dumps({key: each[key] for key in each if key != "sizes"}) for each in records]
        file.write_text("\n".join(lines) + "\n")
    found = tables(capsys, directory)
    assert found["Folder, targets art + cartoon"]["Algorithm"] == ["art", "cartoon", "Mean", "Worst"]


def test_best_settings_run_again_with_all_their_targets(tmp_path, capsys):
    directory = Sweep(PAIRS).write(tmp_path / "s")
    list_top_hparams.main(
        ["--input_dir", str(directory), "--dataset", "Folder", "--algorithm", "ERM", "--test_env", "3"]
    )
    printed = capsys.readouterr().out
    assert "Targets: 2 3" in printed
    assert printed.count("--test_envs 2 3") == 3
    assert "winners/iid/Folder-ERM-2_3-trial0" in printed
    collect_results.main(["--input_dir", str(directory), "--relaunch_best", str(tmp_path / "best.toml")])
    content = tomllib.loads((tmp_path / "best.toml").read_text())
    assert content["target_sets"] == ["0 1", "2 3"]
    assert "test_envs" not in content
    assert "single_test_envs" not in content


def test_paired_comparisons_are_over_the_columns_of_sets(tmp_path):
    sweep = Sweep(SINGLE_SOURCE)
    loaded = load_sweep(sweep.write(tmp_path / "s"))
    report = compare_all(compute_accuracies(loaded.records, METHODS["iid"]), "ERM", splits="own")
    differences = sweep.trials("AgrSum") - sweep.trials("ERM")
    found = {each.target_name: each.comparison for each in report.of("Folder") if each.algorithm == "AgrSum"}
    assert 100 * found["sketch to art"].difference == pytest.approx(differences[:, 9].mean())
    assert 100 * found["Average"].difference == pytest.approx(differences.mean())
    assert not [line for line in cautions(report, loaded.records, loaded.manifest) if "no result" in line]


@pytest.mark.slow
def test_a_page_says_which_sets_are_held_out(tmp_path):
    page = tmp_path / "page.html"
    directory = Sweep(SINGLE_SOURCE).write(tmp_path / "s")
    collect_results.main(["--input_dir", str(directory), "--html", str(page)])
    assert "Several environments are held out at once: from art; from cartoon" in page.read_text()

"""`domainbed.collect` and `report`: what `collect_results` does, from Python."""

import csv
import io
import json

import numpy as np
import pytest

import domainbed
from domainbed.errors import UnknownName, UsageError, describe
from domainbed.records.sweep_records import read_sweep_records
from domainbed.scripts import collect_results


@pytest.fixture(scope="module")
def sweep(tmp_path_factory):
    """Records of ERM and AgrSum in two trials on three targets; AgrSum lacks the last trial of target 2."""
    folder = tmp_path_factory.mktemp("sweep")
    random = np.random.default_rng(0)
    for algorithm in ("ERM", "AgrSum"):
        for trial in range(2):
            for target in range(3):
                if (algorithm, trial, target) != ("AgrSum", 1, 2):
                    write_run(folder, algorithm, trial, target, random.random((2, 3)))
    return folder


def write_run(folder, algorithm, trial, target, accuracies):
    """A finished run of one record; `accuracies` (2, 3) are those of in- and out-splits."""
    args = {"algorithm": algorithm, "dataset": "Debug28", "test_envs": [target], "trial_seed": trial}
    args |= {"hparams_seed": 0, "seed": 0, "steps": 11, "hparams": None, "holdout_fraction": 0.2}
    record = {"args": args, "hparams": {"lr": 0.1}, "step": 10, "env0_in_nll": 0.5}
    for i, (inside, outside) in enumerate(accuracies.T.tolist()):
        record |= {f"env{i}_in_acc": inside, f"env{i}_out_acc": outside}
    run = folder / f"{algorithm}_{trial}_{target}"
    run.mkdir()
    (run / "results.jsonl").write_text(json.dumps(record) + "\n")
    (run / "done").write_text("done")


def csv_of(folder, capsys, *flags):
    """The first table of `collect_results --format csv`."""
    assert collect_results.main(["--input_dir", str(folder), "--format", "csv", *flags]) == 0
    return list(csv.DictReader(io.StringIO(capsys.readouterr().out.split("\n\n")[0])))


def test_the_means_are_those_of_the_csv(sweep, capsys):
    frame = domainbed.collect(sweep)
    rows = csv_of(sweep, capsys)
    assert len(frame) == len(rows) > 0
    for row, (_, found) in zip(rows, frame.iterrows(), strict=True):
        for name in ("selection", "dataset", "algorithm", "environment", "missing"):
            assert row[name] == found[name]
        assert int(row["n"]) == found["n"]
        expected = [float(row[name] or "nan") for name in ("mean", "stderr")]
        np.testing.assert_array_equal(found[["mean", "stderr"]].to_numpy(float), expected)
    assert frame["mean"].isna().any()
    assert {*frame["metric"]} == {"accuracy (%), higher is better"}


def test_the_means_are_the_means_of_the_trials(sweep):
    means = domainbed.collect(sweep, selection=["iid"])
    trials = domainbed.collect(sweep, "trials", selection="iid")
    assert len(trials) == 11
    of_targets = means[means["environment"].isin(trials["environment"]) & (means["n"] > 0)]
    keys = ["algorithm", "environment"]
    found = trials.groupby(keys)["value"].mean()
    np.testing.assert_allclose(found.loc[[*of_targets[keys].itertuples(index=False)]], of_targets["mean"])


def test_the_records_are_all_records(sweep):
    frame = domainbed.collect(sweep, "records")
    records = read_sweep_records(sweep).records()
    assert frame["env1_out_acc"].tolist() == [record["env1_out_acc"] for record in records]
    assert len(domainbed.collect(sweep, "records", where="algorithm=ERM")) == 6


def test_the_paired_frame_has_the_numbers_of_the_paired_tables(sweep, capsys):
    frame = domainbed.collect(sweep, "paired", selection="iid", target_part="test", correction="none")
    assert (
        collect_results.main(
            ["--input_dir", str(sweep), "--selection", "iid", "--format", "csv", "--paired"]
            + ["--paired_selection", "iid", "--target_part", "test", "--correction", "none"]
        )
        == 0
    )
    rows = list(csv.DictReader(io.StringIO(capsys.readouterr().out.split("\n\n")[1])))
    assert len(rows) == len(frame)
    assert [row["p"] for row in rows] == ["" if np.isnan(p) else str(p) for p in frame["p"]]
    assert frame["pairs"].tolist()[1] == 2
    assert frame["target_env"].isna().sum() == 2
    assert str(frame["pairs"].dtype), str(frame["significant"].dtype) == ("Int64", "boolean")


def test_results_by_a_setting_have_its_values_in_the_last_column(sweep):
    frame = domainbed.collect(sweep, selection="iid", by="trial_seed")
    assert frame.columns[-1] == "trial_seed"
    assert {*frame["trial_seed"]} == {"0", "1"}
    trials = domainbed.collect(sweep, "trials", selection="iid")
    by_seed = domainbed.collect(sweep, "trials", selection="iid", by="trial_seed")
    assert by_seed.columns.tolist() == trials.columns.tolist()
    assert sorted(by_seed.itertuples(index=False)) == sorted(trials.itertuples(index=False))


@pytest.mark.parametrize(
    ("arguments", "error"),
    [
        ({"frame": "mean"}, "Frame of results not found: mean. Did you mean means?"),
        ({"metric": "accuracy"}, "Metric not found: accuracy. Known: acc, nll"),
        ({"over_targets": "best"}, "over_targets is one of mean, worst, not 'best'."),
        ({"selection": "idd"}, "Selection method not found: idd. Did you mean iid"),
        ({"baselin": "ERM"}, "no section of the report has an option baselin. Did you mean baseline?"),
        ({"rope": "much"}, "argument --rope: invalid float value: 'much'."),
        ({"rope": [1, 2]}, "an option of the report takes one value, and got others too: 2."),
    ],
)
def test_a_wrong_argument_of_collect_is_named(sweep, arguments, error):
    with pytest.raises((UsageError, UnknownName)) as raised:
        domainbed.collect(sweep, **arguments)
    assert describe(raised.value).startswith(f"error: {error}")


def test_a_report_prints_what_the_command_prints_and_returns_its_files(sweep, tmp_path, capsys):
    written = domainbed.report(
        sweep,
        html=tmp_path / "page.html",
        output_dir=str(tmp_path),
        selection="iid",
        relaunch_best=tmp_path / "best.toml",
        paired=True,
        baseline="ERM",
    )
    assert written == [tmp_path / "results.txt", tmp_path / "page.html", tmp_path / "best.toml"]
    assert all(path.stat().st_size for path in written)
    printed = capsys.readouterr().out
    assert printed == written[0].read_text()
    flags = ["--selection", "iid", "--paired", "--output_dir", str(tmp_path / "other")]
    assert collect_results.main(["--input_dir", str(sweep), *flags]) == 0
    assert capsys.readouterr().out == printed

"""Accuracies on all images of the target: pooled over its parts, at the steps that the protocol selects."""

from __future__ import annotations

import csv
import io
import math

import numpy as np
import pytest

from domainbed.errors import UsageError
from domainbed.model_selection import METHODS, SelectionMethod
from domainbed.records.query import Q
from domainbed.scripts import collect_results
from domainbed_gs.report.target_parts import accuracies_by_part, on_all_images

SIZES = {"in": 70_000, "out": 10_000, "test": 20_000}


def complete(record, rng):
    """`record` with sizes, and accuracies of the target's parts, as runs write them."""
    (target,) = record["args"]["test_envs"]
    shares = {part: round(rng.uniform(0.3, 0.6) * size) / size for part, size in SIZES.items()}
    sizes = {f"env{i}_{part}": size for i in range(4) for part, size in SIZES.items()}
    accuracies = {f"env{target}_{part}_acc": share for part, share in shares.items()}
    validation = {f"env{i}_out_acc": rng.random() for i in range(4) if i != target}
    return record | accuracies | validation | {"sizes": sizes}


@pytest.fixture
def records(sweep):
    rng = np.random.default_rng(0)
    accuracies = {name: {t: [0.5] * 8 for t in (0, 1)} for name in ("ERM", "AgrSum")}
    steps = [sweep(accuracies, step=step) for step in (0, 20, 40)]
    by_run = [complete(record, rng) for of_run in zip(*steps, strict=True) for record in of_run]
    return Q(by_run)


def pooled(record):
    (target,) = record["args"]["test_envs"]
    return sum(record[f"env{target}_{part}_acc"] * size for part, size in SIZES.items()) / 100_000


@pytest.mark.parametrize("name", ["iid", "iccv2021", "iccv2021_macro", "last"])
def test_the_same_step_is_selected_and_all_images_are_reported(records, name):
    method = METHODS[name]
    part = "in" if name == "iid" else "test"
    for start in range(0, len(records), 3):
        run = Q(records[start : start + 3])
        own, every = method.run_acc(run), on_all_images(method).run_acc(run)
        (target,) = run[0]["args"]["test_envs"]
        (chosen,) = (record for record in run if record[f"env{target}_{part}_acc"] == own["test_acc"])
        assert every == {"val_acc": own["val_acc"], "test_acc": pytest.approx(pooled(chosen))}


@pytest.mark.parametrize("lack", ["env0_in_acc", "env0_out", "sizes"])
def test_without_a_part_or_its_size_the_accuracy_is_missing_and_selection_is_the_same(records, lack):
    run = [dict(record) for record in records[:3]]
    best = METHODS["iccv2021"].run_acc(Q(run))
    for record in run:
        record["sizes"] = {k: v for k, v in record["sizes"].items() if k != lack}
        record.pop(lack, None)
    found = METHODS["iccv2021"].run_acc(Q(run))
    every = on_all_images(METHODS["iccv2021"]).run_acc(Q(run))
    if lack == "sizes":
        assert found is every is None  # sizes weigh the validation accuracies too
    else:
        assert every["val_acc"] == found["val_acc"] == best["val_acc"]
        assert math.isnan(every["test_acc"])


def test_hyper_parameters_are_selected_as_by_the_protocol(records):
    worse = [record | {"args": record["args"] | {"hparams_seed": 1}} for record in records[:3]]
    worse = [record | {f"env{i}_out_acc": 0.0 for i in (1, 2, 3)} for record in worse]
    group = Q([*({k: v for k, v in r.items() if k != "env0_in_acc"} for r in records[:3]), *worse])
    assert math.isnan(on_all_images(METHODS["iccv2021"]).sweep_acc(group))


def test_methods_that_cannot_report_all_images_are_refused():
    class Own(SelectionMethod):
        """A method as forks define them."""

        name = "own"

    with pytest.raises(UsageError, match="the selection method own does not declare its test_key"):
        on_all_images(Own)
    with pytest.raises(UsageError, match="selects by some of them"):
        on_all_images(METHODS["oracle"])


def test_both_are_given_where_all_images_were_recorded_and_differ(records, sweep):
    assert list(accuracies_by_part(records, METHODS["iccv2021"])) == ["test", "all"]
    assert list(accuracies_by_part(records, METHODS["iccv2021"], "test")) == ["test"]
    assert list(accuracies_by_part(records, METHODS["iccv2021"], "all")) == ["all"]
    assert list(accuracies_by_part(records, METHODS["oracle"])) == ["test"]
    incomplete = sweep({"ERM": {0: [0.5]}, "AgrSum": {0: [0.6]}})
    assert list(accuracies_by_part(incomplete, METHODS["iccv2021"])) == ["test"]
    whole = [record | {f"env{t}_{part}_acc": 0.5 for t in (0, 1) for part in SIZES} for record in records]
    assert list(accuracies_by_part(Q(whole), METHODS["iccv2021"])) == ["test"]


def test_reports(records, collect, tmp_path):
    captured = collect(records, "--paired", "--format", "csv")
    rows = list(csv.DictReader(io.StringIO("\n".join(captured.out.split("\n\n")[1:]))))
    rows = [row for row in rows if row["table"] != "table"]  # the second table has a header of its own
    assert [row["target_part"] for row in rows] == ["test"] * 6 + ["all"] * 6
    assert rows[-1]["table"] == "Paired comparison with ERM, all images of the target"
    chosen = accuracies_by_part(records, METHODS["iccv2021"])["all"].by_target["EmojiStyles", "AgrSum", 1]
    (row,) = (row for row in rows[6:] if (row["target_env"], row["algorithm"]) == ("1", "AgrSum"))
    assert float(row["mean_percent"]) == pytest.approx(100 * np.mean(list(chosen.values())))
    assert "All images of the target: the same trials, selected at the same steps" in captured.err


def test_text_has_the_protocols_tables_first(records, collect):
    out = collect(records, "--paired").out
    titles = [line for line in out.splitlines() if "-- Dataset" in line and "model selection" not in line]
    assert titles == [
        "-------- Dataset: EmojiStyles, target accuracy (%)",
        "-------- Dataset: EmojiStyles, average over targets: difference to ERM (percentage points)",
        "-------- Dataset: EmojiStyles, single targets: difference to ERM (percentage points)",
        "-------- Dataset: EmojiStyles, accuracy on all images of the target (%)",
        "-------- Dataset: EmojiStyles, average over targets, all images: difference to ERM "
        "(percentage points)",
        "-------- Dataset: EmojiStyles, single targets, all images: difference to ERM (percentage points)",
    ]


def test_one_part_alone(records, write, capsys):
    folder = str(write(records))
    collect_results.main(["--input_dir", folder, "--paired", "--target_part", "all"])
    out = capsys.readouterr().out
    assert "accuracy on all images of the target (%)" in out
    assert "target accuracy (%)" not in out
    collect_results.main(["--input_dir", folder, "--paired", "--target_part", "test"])
    assert "all images" not in capsys.readouterr().out


def test_all_images_that_were_not_recorded_are_an_error(sweep, write):
    records = sweep({"ERM": {0: [0.5]}, "AgrSum": {0: [0.6]}})
    with pytest.raises(UsageError, match="--target_part all needs the accuracies and the sizes of all parts"):
        collect_results.main(["--input_dir", str(write(records)), "--paired", "--target_part", "all"])

"""The study on PACS: its tables and its choices follow from the records in the repository."""

import json
import re
import tarfile
from collections import defaultdict
from pathlib import Path

import numpy as np
import pytest

from domainbed.records.sweep_records import load_records
from domainbed.sweep.flags import parse

ROOT = Path(__file__).parents[2]
SWEEP_FILE = ROOT / "sweeps" / "pacs_efficientnet.toml"


@pytest.fixture(scope="module")
def validation(tmp_path_factory):
    """Algorithm -> learning rate -> best validation accuracy of the sources in %, mean over targets."""
    folder = tmp_path_factory.mktemp("pacs")
    with tarfile.open(ROOT / "docs" / "pacs.tar.xz") as archive:
        archive.extractall(folder, filter="data")
    of_runs = defaultdict(list)
    for record in load_records(folder / "runs/pacs_last_grid"):
        (target,) = record["args"]["test_envs"]
        sources = [record[f"env{i}_out_acc"] for i in range(4) if i != target]
        of_runs[record["args"]["algorithm"], record["hparams"]["lr"], target].append(np.mean(sources))
    found = defaultdict(lambda: defaultdict(list))
    for (algorithm, lr, _), accuracies in of_runs.items():
        found[algorithm][lr].append(100 * max(accuracies))
    assert all(len(runs) == 4 for own in found.values() for runs in own.values())
    return {name: {lr: np.mean(runs) for lr, runs in sorted(own.items())} for name, own in found.items()}


def test_the_table_of_learning_rates_is_that_of_the_records(validation):
    rows = dict(re.findall(r"^\| (\w+) \| (.*) \|$", (ROOT / "docs/pacs.md").read_text(), re.MULTILINE))
    assert {*rows} == {*validation}
    for name, row in rows.items():
        *accuracies, chosen = row.split(" | ")
        assert accuracies == [f"{value:.1f}" for value in validation[name].values()]
        assert float(chosen) == max(validation[name], key=validation[name].get)


def test_each_chosen_rate_is_the_best_and_lies_inside_the_grid(validation):
    args = parse(["launch", "--config", str(SWEEP_FILE), "--preset", "last"])
    hparams = json.loads(args.hparams)
    assert {*args.algorithms} == {*validation}
    for name, of_rates in validation.items():
        rates = list(of_rates)
        best = max(of_rates, key=of_rates.get)
        assert {**hparams, **hparams.get(name, {})}["lr"] == best
        assert best not in (rates[0], rates[-1])

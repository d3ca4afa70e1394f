"""The study on PACS: its tables that no command prints follow from the records."""

import csv
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
DEPTHS = {"last": "Last stage", "last_two": "Last two stages", "whole": "Whole network"}
"""Preset -> heading of its grid in docs/pacs.md."""


@pytest.fixture(scope="module")
def records(tmp_path_factory):
    """Folder with the records of the grids, and the measurements of similarity."""
    folder = tmp_path_factory.mktemp("pacs")
    with tarfile.open(ROOT / "docs" / "pacs.tar.xz") as archive:
        wanted = [member for member in archive if re.search("_grid/|similarity", member.name)]
        archive.extractall(folder, wanted, filter="data")
    return folder / "runs"


@pytest.fixture(params=DEPTHS)
def depth(request):
    return request.param


@pytest.fixture
def validation(records, depth):
    """Algorithm -> learning rate -> best validation accuracy of the sources in %, mean over targets."""
    of_runs = defaultdict(list)
    for record in load_records(records / f"pacs_{depth}_grid"):
        (target,) = record["args"]["test_envs"]
        sources = [record[f"env{i}_out_acc"] for i in range(4) if i != target]
        of_runs[record["args"]["algorithm"], record["hparams"]["lr"], target].append(np.mean(sources))
    found = defaultdict(lambda: defaultdict(list))
    for (algorithm, lr, _), accuracies in of_runs.items():
        found[algorithm][lr].append(100 * max(accuracies))
    assert all(len(runs) == 4 for own in found.values() for runs in own.values())
    return {name: {lr: np.mean(runs) for lr, runs in sorted(own.items())} for name, own in found.items()}


def test_the_table_of_learning_rates_is_that_of_the_records(validation, depth):
    text = (ROOT / "docs" / "pacs.md").read_text(encoding="utf-8")
    section = text.partition(f"### {DEPTHS[depth]}\n")[2].partition("\n#")[0]
    rows = dict(re.findall(r"^\| (\w+) \| (.*) \|$", section, re.MULTILINE))
    assert {*rows} == {*validation}
    for name, row in rows.items():
        *accuracies, chosen = row.split(" | ")
        assert accuracies == [f"{value:.1f}" for value in validation[name].values()]
        assert float(chosen) == max(validation[name], key=validation[name].get)


def test_each_chosen_rate_is_the_best_and_lies_inside_the_grid(validation, depth):
    args = parse(["launch", "--config", str(SWEEP_FILE), "--preset", depth])
    hparams = json.loads(args.hparams)
    assert {*args.algorithms} == {*validation}
    for name, of_rates in validation.items():
        rates = list(of_rates)
        best = max(of_rates, key=of_rates.get)
        assert {**hparams, **hparams.get(name, {})}["lr"] == best
        assert best not in (rates[0], rates[-1])


@pytest.mark.parametrize("target", range(4))
def test_the_table_of_similarities_is_that_of_the_measurements(records, target):
    with (records / "pacs_similarity" / f"last_{target}" / "similarity.csv").open() as file:
        rows = list(csv.DictReader(file))
    columns = {name: np.array([float(row[name]) for row in rows]) for name in rows[0] if name != "class"}
    difference = columns["within_cosine"] - columns["between_cosine"]
    chance = {kind: (1 - columns[f"{kind}_zeros"].mean()) / 2 for kind in ("within", "between")}
    expected = [
        "ACPS"[target],
        *(f"{columns[f'{kind}_cosine'].mean():.3f}" for kind in ("within", "between")),
        f"{difference.mean():.3f} +/- {difference.std(ddof=1) / np.sqrt(len(rows)):.3f}",
        f"{100 * (difference > 0).mean():.0f} %",
        *(f"{columns[f'{kind}_agreement'].mean():.3f} ({chance[kind]:.3f})" for kind in chance),
        f"{columns['consensus'].mean():.3f} ({(1 - columns['zeros'].mean()) / 4:.3f})",
    ]
    assert f"\n| {' | '.join(expected)} |\n" in (ROOT / "docs" / "pacs.md").read_text(encoding="utf-8")

"""What a report says, and in which order, does not depend on the names of the runs' folders."""

import json
import random
import re

import numpy as np
import pytest

from domainbed.results.method_names import algorithm_and_condition
from domainbed.scripts.collect_results import main

METHODS = ("AgrSum", "ERM", "AgrSum/pooled", "SANDMask", "OfAPlugin")


def write(sweeps, root, seed):
    """The runs of all `sweeps` in folders whose names are in a random order."""
    runs = [(sweep, key) for sweep in sweeps for key in sweep.runs]
    random.Random(seed).shuffle(runs)
    for i, (sweep, key) in enumerate(runs):
        run = root / f"{i:04d}"
        run.mkdir(parents=True)
        records = sweep.records(key, f"sweep/{sweep.folder(key)}")
        algorithm, grouping = algorithm_and_condition(sweep.algorithm)
        args = records[0]["args"] | {"algorithm": algorithm, "grouping": grouping}
        records = [record | {"args": args} for record in records]
        (run / "results.jsonl").write_text("".join(json.dumps(record) + "\n" for record in records))
        (run / "done").write_text("done")
    return root


@pytest.fixture
def sweeps(synthetic):
    """All methods on two datasets, each with accuracies of its own."""
    made = [synthetic(dataset, method) for dataset in ("VLCS", "PACS") for method in METHODS]
    draws = np.random.default_rng(0)
    for sweep in made:
        sweep.runs = {key: draws.permuted(values) for key, values in sweep.runs.items()}
    return made


def test_names_of_folders_decide_nothing(sweeps, tmp_path, capsys):
    flags = ["--paired", "--budget", "--ranks", "--aggregate"]
    reports = []
    for seed in range(2):
        root = write(sweeps, tmp_path / str(seed) / "sweep", seed)
        main(["--input_dir", str(root), "--html", str(root / "page.html"), *flags])
        page = (root / "page.html").read_text(encoding="utf-8")
        reports.append((capsys.readouterr().out.replace(str(root), ""), page.replace(str(root), "")))
    assert len({text for text, _ in reports}) == 1
    assert len({re.sub(r"\s+", " ", page) for _, page in reports}) == 1

"""`collect_results --control`: conditions of one algorithm compared, and separate methods in other tables."""

from __future__ import annotations

import csv
import io
import json

import pytest

from domainbed.errors import UsageError
from domainbed.records.query import Q
from domainbed.scripts import collect_results
from domainbed_gs.report.comparison import compare
from domainbed_gs.report.statistics import holm

DOMAIN = [0.61, 0.62, 0.64, 0.60, 0.66, 0.63]
SINGLE = [0.58, 0.60, 0.61, 0.61, 0.60, 0.59]
POOLED = [0.59, 0.60, 0.60, 0.57, 0.61, 0.60]


@pytest.fixture
def records(sweep):
    parts = [
        sweep({"ERM": {0: [0.5] * 6, 2: [0.5] * 6}}),
        sweep({"AgrSum": {0: DOMAIN, 2: DOMAIN}, "PCGrad": {0: SINGLE}}, grouping="domain"),
        sweep({"AgrSum": {0: SINGLE, 2: DOMAIN}, "PCGrad": {0: SINGLE}}, grouping="single_domain"),
        sweep({"AgrSum": {0: POOLED, 2: SINGLE}}, grouping="pooled"),
    ]
    return Q([record for part in parts for record in part])


def test_each_condition_is_compared_with_domain(records, collect):
    out = collect(records, "--control", "--format", "csv").out
    rows = list(csv.DictReader(io.StringIO(out.split("\n\n")[1])))
    found = {(row["dataset"], row["target"], row["algorithm"]): row for row in rows}
    assert {row["baseline"] for row in rows} == {"domain"}
    assert not any("ERM" in row["dataset"] for row in rows)
    pairs = {
        ("EmojiStyles, AgrSum", "Flat", "single_domain"): (SINGLE, DOMAIN),
        ("EmojiStyles, AgrSum", "Flat", "pooled"): (POOLED, DOMAIN),
        ("EmojiStyles, AgrSum", "Line", "single_domain"): (DOMAIN, DOMAIN),
        ("EmojiStyles, AgrSum", "Line", "pooled"): (SINGLE, DOMAIN),
        ("EmojiStyles, PCGrad", "Flat", "single_domain"): (SINGLE, SINGLE),
    }
    p_values = {key: compare(*each).p for key, each in pairs.items()}
    for key, p in p_values.items():
        assert float(found[key]["p"]) == p
    single = [key for key in pairs if "AgrSum" in key[0]]  # PCGrad's only target is in the primary family
    for key, holm_p in zip(single, holm([p_values[key] for key in single]), strict=True):
        assert float(found[key]["holm_p"]) == holm_p
    primary = [row for row in rows if row["p"] and (row["target"] == "Average" or "PCGrad" in row["dataset"])]
    assert [float(row["holm_p"]) for row in primary] == holm([float(row["p"]) for row in primary])
    first = found["EmojiStyles, AgrSum", "Flat", "single_domain"]
    assert float(first["difference_points"]) == pytest.approx(100 * compare(SINGLE, DOMAIN).difference)


def test_conditions_are_separate_methods_in_all_other_tables(records, collect):
    out = collect(records, "--paired", "--paired_selection", "iccv2021").out
    assert "AgrSum/single_domain" in out
    difference = [line.split() for line in out.splitlines() if line.startswith("Flat ")]
    assert {line[1] for line in difference} >= {"AgrSum", "AgrSum/pooled", "PCGrad/single_domain"}
    assert "Control experiment" not in out


def test_text_has_conditions_in_order_and_explains_them(records, collect):
    out = collect(records, "--control").out
    control = out.split("-------- Dataset: EmojiStyles, AgrSum, target accuracy (%)")[1]
    assert [line.split()[0] for line in control.splitlines()[1:5]] == [
        "Method",
        "domain",
        "single_domain",
        "pooled",
    ]
    assert "EmojiStyles, AgrSum, single targets: difference to domain (percentage points)" in control
    assert "EmojiStyles, PCGrad, Flat: difference to domain (percentage points)" in control
    assert "pooled: the samples of domain" in " ".join(control.split())


def test_cautions_are_about_the_conditions(records, write, capsys):
    without = Q([r for r in records if r["args"]["trial_seed"] or r["args"].get("grouping") != "pooled"])
    folder = write(without)
    jobs = {str(i): record["args"] for i, record in enumerate(records)}
    (folder / "sweep.json").write_text(json.dumps({"jobs": jobs, "selection": ["iccv2021"], "version": 1}))
    assert collect_results.main(["--input_dir", str(folder), "--control"]) == 0
    out = " ".join(capsys.readouterr().out.split())
    assert (
        "EmojiStyles, AgrSum, target Flat: pooled has no result for trial 0. It is compared with domain on 5"
        in out
    )
    assert "no results for ERM" not in out


def test_one_figure_for_each_algorithm(records, collect, tmp_path):
    out = collect(records, "--control_figures", str(tmp_path / "figures")).out
    paths = [tmp_path / "figures" / f"EmojiStyles_{name}.png" for name in ("AgrSum", "PCGrad")]
    assert all(path.stat().st_size > 5000 for path in paths)
    assert out.splitlines()[-2:] == [f"Figure: {path}" for path in paths]
    assert "difference to domain" not in out


def test_a_page_has_it_by_default_and_published_numbers_on_request(records, collect, tmp_path):
    path = tmp_path / "page.html"
    (tmp_path / "own.csv").write_text("dataset,target,method,mean\nEmojiStyles,Flat,ERM,48.5\n")
    collect(records, "--html", str(path), "--against", str(tmp_path / "own.csv"))
    page = path.read_text(encoding="utf-8")
    control = page.split('<section id="control">')[1].split("</section>")[0]
    assert "<h2>Control experiment</h2>" in control
    title = "Dataset: EmojiStyles, AgrSum, average over targets: difference to domain (percentage points)"
    assert f"<h3>{title}</h3>" in control
    assert 'aria-label="Dataset: EmojiStyles, PCGrad, target accuracy of each trial: Flat"' in control
    against = page.split('<section id="against">')[1].split("</section>")[0]
    assert "<h2>Beside published numbers</h2>" in against
    assert '<td class="number">+1.50</td>' in against


def test_a_sweep_without_conditions_is_refused(sweep, collect):
    with pytest.raises(UsageError, match="--grouping domain single_domain pooled"):
        collect(sweep({"ERM": {0: [0.5]}, "AgrSum": {0: [0.6]}}), "--control")

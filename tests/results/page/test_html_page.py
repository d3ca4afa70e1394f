"""`collect_results --html`: the content of the page, and that it agrees with the other formats."""

from __future__ import annotations

import csv
import functools
import io
import json
import re
import shutil
import subprocess
import sys
from html.parser import HTMLParser

import pytest

from domainbed.errors import RunError, UsageError
from domainbed.results.tables import render_table
from domainbed.scripts import collect_results

VOID = {"meta", "link", "br", "img", "path", "use", "input", "hr", "defs", "wbr"}


class Page(HTMLParser):
    """Parts of a page by id. Each maps the heading of a table to its rows of texts."""

    def __init__(self, text):
        super().__init__()
        self.text, self.outside, self.parts, self.svgs = text, [], {}, []
        self.headline = re.search(r"<h1>(.*?)</h1>", text)[1]
        self._part, self._heading, self._cell, self._open = None, None, None, []
        self.feed(text)
        assert self._open == [], "unclosed elements"

    def handle_starttag(self, tag, attrs):
        attrs = dict(attrs)
        self.outside += [attrs[name] for name in ("src", "href") if name in attrs]
        if tag not in VOID:
            self._open.append(tag)
        if tag == "section":
            self._part = self.parts.setdefault(attrs["id"], {})
        elif tag in ("h2", "h3", "th", "td"):
            self._cell = ""
        elif tag == "tr":
            self._part.setdefault(self._heading, []).append([])
        elif tag == "svg" and "aria-label" in attrs:
            self.svgs.append(attrs["aria-label"])

    def handle_endtag(self, tag):
        if tag not in VOID:
            assert self._open.pop() == tag
        if tag in ("h2", "h3"):
            self._heading = self._cell
        elif tag in ("th", "td"):
            self._part[self._heading][-1].append(self._cell)
        self._cell = None if tag in ("h2", "h3", "th", "td") else self._cell

    def handle_data(self, data):
        if self._cell is not None:
            self._cell += data


@pytest.fixture(scope="module")
def page(tmp_path_factory):
    """`page(sweep, *flags)`: the parsed page of a sweep directory."""

    @functools.cache
    def make(sweep, *flags):
        path = tmp_path_factory.mktemp("new") / "folder" / "report.html"
        assert collect_results.main(["--input_dir", str(sweep), "--html", str(path), *flags]) == 0
        return Page(path.read_text(encoding="utf-8"))

    return make


@pytest.fixture(scope="module")
def two_methods(synthetic, tmp_path_factory):
    """Directory of a sweep: ERM and AgrSum on VLCS, gaps, a failed run, data identities, a manifest."""
    vlcs = synthetic()
    sweep = vlcs.write(tmp_path_factory.mktemp("two_methods") / "sweep")
    for results in sweep.glob("*/results.jsonl"):
        lines = [json.dumps(json.loads(line) | ABOUT_DATA) for line in results.read_text().splitlines()]
        results.write_text("\n".join(lines))
    vlcs.algorithm = "AgrSum"
    vlcs.runs = {key: (accs * 0.9 + 0.1) for key, accs in vlcs.runs.items() if key != (1, (2,), 0)}
    vlcs.write(sweep)
    failed = {"error": "loss is nan at step 40 <AgrSum & more>", "exit_status": 1, "failures": 1}
    (sweep / "failed").mkdir()
    (sweep / "failed" / "failed.json").write_text(json.dumps(failed))
    args = {"dataset": "VLCS", "test_envs": [2], "hparams_seed": 0, "trial_seed": 1, "algorithm": "AgrSum"}
    jobs = {run.name: args for run in sweep.iterdir()}
    command = "python -m domainbed.scripts.sweep launch --config 'my sweep.toml'"
    manifest = {"jobs": jobs, "selection": ["iid", "oracle"], "commands": [command], "version": 1}
    (sweep / "sweep.json").write_text(json.dumps(manifest))
    return sweep


ABOUT_DATA = {
    "data": {"checksum": "3f9a", "version": "2"},
    "weights": {"name": "none", "sha256": ""},
    "sizes": {"env0_in": 1131, "env0_out": 282},
}


def printed(sweep, format, capsys, *flags):
    collect_results.main(["--input_dir", str(sweep), "--format", format, *flags])
    return capsys.readouterr().out


def test_all_parts_are_present_and_nothing_is_loaded_from_elsewhere(two_methods, page):
    report = page(two_methods)
    names = ["overview", "results", "paired", "budget", "curves", "sensitivity", "gaps", "repeat"]
    assert list(report.parts) == ["answer", *names]
    assert all(link.startswith(("#", "data:,")) for link in report.outside)
    assert [link for link in report.outside if link.removeprefix("#") in names] == [
        f"#{name}" for name in names
    ]
    assert not re.search(r"https?://|//[a-z]|@import", report.text)
    assert len(report.svgs) == len(set(report.svgs)) == 9
    assert "Dataset: VLCS, target accuracy of each trial: Average" in report.svgs
    assert "Dataset: VLCS, accuracy over the updates: AgrSum" in report.svgs


ONLY_IN_WIDE_FORMATS = ("Trials", "W/T/L", "Detectable")
"""Columns of paired comparisons for which lines of text have no room."""


def test_all_formats_have_the_same_cells(two_methods, page, capsys):
    """HTML, Markdown, LaTeX and text agree exactly; CSV has full precision and rounds to the same texts."""
    report = page(two_methods)
    markdown = printed(two_methods, "markdown", capsys, "--paired")
    latex = printed(two_methods, "latex", capsys, "--paired")
    text = printed(two_methods, "text", capsys, "--paired")
    tables = report.parts["results"] | report.parts["paired"]
    tables = {title: rows for title, rows in tables.items() if not title.endswith("of each trial")}
    assert len(tables) == 8
    for title, rows in tables.items():
        block = markdown.split(f"### {title}\n\n")[1].split("\n\n")[0].replace("+/-", "±").splitlines()
        assert [line.strip("| ").split(" | ") for line in block if "---" not in line] == rows
        for row in rows[1:]:
            shown = [
                cell for head, cell in zip(rows[0], row, strict=True) if head not in ONLY_IN_WIDE_FORMATS
            ]
            flat = " ".join(cell.replace("±", "+/-") for cell in shown)
            assert flat in " ".join(text.split())
            cells = [cell.replace("±", r"$\pm$").replace("%", r"\%") for cell in row]
            assert re.search(r"\s*&\s*".join(map(re.escape, cells)), latex)
    rows = csv.DictReader(io.StringIO(printed(two_methods, "csv", capsys)))
    found = {(row["selection"], row["algorithm"], row["environment"]): row for row in rows}
    (title,) = (name for name in tables if "VLCS" in name and "training-domain" in name)
    header, *body = tables[title]
    for name, *cells in body:
        for environment, cell in zip(header[1:-1], cells, strict=False):
            row = found["iid", name, environment]
            numbers = [f"{float(row[key]):.1f}" for key in ("mean", "stderr") if row[key]]
            assert cell == (" ± ".join(numbers) or "X")


def test_overview_shows_settings_and_data(two_methods, page):
    report = page(two_methods)
    assert "<dt>Trials</dt><dd>2 (trial seeds 0 to 1)</dd>" in report.text
    assert "<dt>Algorithms</dt><dd>ERM, AgrSum</dd>" in report.text
    assert "Data: checksum 3f9a, version 2." in report.text
    assert "Initial weights: random." in report.text
    data = report.parts["overview"]["Data: VLCS"]
    assert data[0] == ["Number", "Environment", "Held out", "Samples, in", "Samples, out"]
    assert data[1:3] == [["0", "C", "yes", "1131", "282"], ["1", "L", "yes", "-", "-"]]
    assert ["batch_size", "17, 32", "all"] in report.parts["overview"]["Hyper-parameters"]
    assert ["steps", "1001"] in report.parts["overview"]["Settings"]


def test_overview_names_the_machines_that_computed_the_runs(two_methods, page, tmp_path):
    assert "<dt>Computed on</dt><dd>not recorded</dd>" in page(two_methods).text
    copy = shutil.copytree(two_methods, tmp_path / "copy")
    run = next(copy.glob("*/results.jsonl")).parent
    machine = {"processor": "P & Q", "kernels": "AVX2", "threads": 2, "device": "cpu", "torch": "2.9"}
    (run / "run.json").write_text(json.dumps({"machines": [machine]}), encoding="utf-8")
    assert "<dd>P &amp; Q, AVX2, 2 threads, cpu, torch 2.9 (1 run)</dd>" in page(copy).text


def test_sensitivity_lists_the_hyperparameters_that_vary(two_methods, page):
    table = page(two_methods).parts["sensitivity"]["Dataset: VLCS, hyper-parameters that vary"]
    found = {(row[0], row[1], row[2]) for row in table[1:]}
    varying = (("lr", "5e-05, 0.0001"), ("batch_size", "17, 32"))
    assert found == {(name, *hparam) for name in ("ERM", "AgrSum") for hparam in varying}
    # Two settings (each over both trials) are too few for a correlation.
    assert all(row[4:] == ["-", "-", "2"] for row in table[1:])


def test_failures_gaps_and_commands(two_methods, page):
    report = page(two_methods)
    (row,) = report.parts["gaps"]["Unfinished runs"][1:]
    reason = "loss is nan at step 40 <AgrSum & more>"
    assert row == ["failed", reason, "VLCS", "AgrSum", "[2]", "0", "1", "failed"]
    assert "&lt;AgrSum &amp; more&gt;" in report.text
    assert "1 of the 80 runs in sweep.json have no records yet" in report.text
    assert "cells with missing trials" not in report.text
    assert "sweep launch --config &#x27;my sweep.toml&#x27;" in report.text
    assert report.text.count("python -m domainbed.scripts.train ") == 79
    assert f"collect_results --input_dir {two_methods} --html" in report.text
    assert "Each of the 79 runs<" in report.text
    assert "--algorithm AgrSum --data_dir /data --dataset VLCS" in report.text


def test_a_failing_section_shows_the_reason_unless_it_was_requested(two_methods, page, tmp_path):
    assert "Left out: --baseline IRM has no results" in page(two_methods, "--baseline", "IRM").text
    with pytest.raises(UsageError, match="--baseline IRM"):
        page(two_methods, "--baseline", "IRM", "--paired")
    (tmp_path / "file").write_text("")
    with pytest.raises(RunError, match="cannot write the page"):
        collect_results.main(["--input_dir", str(two_methods), "--html", str(tmp_path / "file" / "x.html")])


def test_without_matplotlib_the_page_has_tables_and_says_how_to_install_it(
    two_methods, page, without_matplotlib
):
    report = page(two_methods, "--selection", "iid")
    (plot,) = report.svgs  # drawn without matplotlib
    assert plot.startswith("AgrSum: +2.5, 95 % interval unbounded, ")
    assert "pip install &#x27;domainbed-gs[plots]&#x27;" in report.text
    assert "paired" in report.parts
    assert "curves" not in report.parts


def test_the_same_sweep_gives_the_same_page_and_needs_no_torch(two_methods, page, tmp_path):
    first = page(two_methods).text
    path = tmp_path / "report.html"
    code = (
        "import sys\n"
        "from domainbed.scripts import collect_results\n"
        f"collect_results.main(['--input_dir', {str(two_methods)!r}, '--html', {str(path)!r}])\n"
        "sys.exit('torch' in sys.modules)"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    assert f"Page: {path}" in done.stderr
    own_path = re.compile(r"--html \S+")
    assert own_path.sub("", path.read_text(encoding="utf-8")) == own_path.sub("", first)


def test_html_table_with_numbers_gaps_and_sentences():
    rows = [["x & y", "1.0 +/- 0.1", "-"], ["z", "X", "w" * 41]]
    text = render_table("a < b", ["Name", "Mean", "Why"], rows, "html")
    assert '<th scope="col" class="number">Mean</th><th scope="col" class="long">Why</th>' in text
    assert '<th scope="row">x &amp; y</th><td class="number">1.0 ± 0.1</td><td class="long">-</td>' in text
    assert '<td class="number">X</td>' in text
    assert "<h3>a &lt; b</h3>" in text

"""Whole outputs of the scripts, for names that a terminal, a browser, TeX or a spreadsheet would obey."""

from __future__ import annotations

import contextlib
import functools
import html
import io
import itertools
import json
import operator
import re
import shutil
import subprocess
import tempfile
import tomllib
import unicodedata
from html.parser import HTMLParser
from pathlib import Path
from xml.etree import ElementTree

import numpy as np
import pandas as pd
import pytest
from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st
from markdown_it import MarkdownIt

from domainbed.errors import DomainBedError
from domainbed.escaping import encodable, html_escape, latex_escape, visible
from domainbed.scripts import collect_results
from domainbed.scripts import sweep as sweep_script
from domainbed_gs.scripts import plan

HOSTILE = (
    "$x$ \\frac{ $", "100 % & a_b #1 ~^{}", "\x1b[31mred\x07", "a\nb\r\nc\td", "<script>f(1)</script> &amp;",
    "=cmd()|'C:'!A0", "猫 한국어 😀", "\u202eabc", "\udcff \ud800", "| a | `b` *c* _d_ [e](f)", "[1]*", "--",
)  # fmt: skip
SECTIONS = ("--paired", "--gradients", "--aggregate", "--budget")
NAMES = st.one_of(st.sampled_from(HOSTILE), st.text(min_size=1, max_size=10))
TARGETS, TRIALS = 2, 2


def write_sweep(folder, dataset, algorithms, environments, hparams_seeds=1):
    """A sweep of finished runs with these names, and one that failed with all of them in its error."""
    random = np.random.default_rng(0)
    grid = itertools.product(algorithms, range(TARGETS), range(TRIALS), range(hparams_seeds))
    for number, (algorithm, target, trial, hparams_seed) in enumerate(grid):
        args = {"dataset": dataset, "algorithm": algorithm, "test_envs": [target], "trial_seed": trial}
        args |= {
            "hparams_seed": hparams_seed,
            "seed": trial,
            "holdout_fraction": 0.2,
            "output_dir": f"runs/{number}",
        }
        about = {
            "args": args,
            "hparams": {"lr": 0.1 * hparams_seed, dataset: algorithm},
            "environments": [*environments],
        }
        lines = []
        for step in (0, 10):
            record = {"step": step, "agreement": 0.3, "data": {"name": dataset}, "sizes": {}, **about}
            for index in range(len(environments)):
                record |= {f"env{index}_{kind}_acc": float(random.random()) for kind in ("in", "out")}
            lines.append(json.dumps(record) + "\n")
        (folder / str(number)).mkdir(parents=True)
        (folder / str(number) / "results.jsonl").write_text("".join(lines))
        (folder / str(number) / "done").touch()
    (folder / "bad").mkdir()
    failure = {"error": " ".join([dataset, *algorithms]), "exit_status": 1, "host": dataset}
    (folder / "bad" / "failed.json").write_text(json.dumps(failure))
    args |= {"algorithm": algorithms[-1]}
    jobs = {"jobs": {"bad": args}, "selection": ["iid"], "commands": [f"sweep {dataset}"]}
    (folder / "sweep.json").write_text(json.dumps(jobs))
    return folder


def output(main, *flags):
    """(stdout, stderr) of a script that succeeds, or fails as a sweep with a failed run does."""
    out, err = io.StringIO(), io.StringIO()
    with contextlib.redirect_stdout(out), contextlib.redirect_stderr(err):
        assert main([str(flag) for flag in flags]) in (0, 1)
    return out.getvalue(), err.getvalue()


def controls(text, allowed="\n"):
    """Characters of `text` that a terminal obeys or that have no encoding."""
    text = set(text) - set(allowed)
    return {c for c in text if unicodedata.category(c) in ("Cc", "Cs", "Zl", "Zp") or c in "\u202e\u2066"}


class Elements(HTMLParser):
    """Checks that elements are closed, and collects names of elements, headers of rows, and alerts."""

    VOID = {"meta", "link", "br", "img", "path", "use", "input", "hr", "wbr", "circle", "line", "rect"}

    def __init__(self, text):
        super().__init__()
        self.open, self.names, self.cells = [], [], []
        self.feed(text)
        self.close()
        assert self.open == []

    def handle_starttag(self, tag, attributes):
        self.names.append(tag)
        assert not [name for name, _ in attributes if name.startswith("on")]
        if tag not in self.VOID:
            self.open.append(tag)
        if tag in ("th", "td"):
            self.cells.append("")

    def handle_startendtag(self, tag, attributes):
        self.names.append(tag)

    def handle_endtag(self, tag):
        if tag not in self.VOID:
            assert self.open.pop() == tag

    def handle_data(self, data):
        if self.open and self.open[-1] in ("th", "td"):
            self.cells[-1] += data


def check_page(text, names):
    """The page is well-formed, runs only its own scripts, and shows each name; its figures are XML."""
    parsed = Elements(text)
    assert parsed.names.count("script") == 1
    shown = {visible(name) for name in names} | {html.unescape(html_escape(name)) for name in names}
    for name in names:
        assert {visible(name), html.unescape(html_escape(name))} & {*parsed.cells}, name
    svgs = re.findall(r"<svg .*?</svg>(?!</svg>)", text, re.DOTALL)
    figures = [ElementTree.fromstring(svg) for svg in svgs if "aria-label" in svg[:300] and "<text" in svg]
    texts = {element.text for figure in figures for element in figure.iter("text")}
    assert figures
    assert texts & shown


def check_reports(names, flags=()):
    """`collect_results` in each format but HTML, `plan`, and `sweep status`."""
    algorithm, environment, dataset = names
    algorithms, environments = ("ERM", algorithm), (environment, "last")
    with tempfile.TemporaryDirectory() as place:
        folder = write_sweep(Path(place) / "sweep", dataset, algorithms, environments, 2 if flags else 1)
        common = ("--input_dir", folder, "--selection", "iid", "--output_dir", place)
        for format in ("text", "latex", "markdown"):
            out, err = output(collect_results.main, *common, "--format", format, *flags)
            assert not controls(out)
            assert not controls(err, "\n\r")
            if format == "text":
                assert any(line.startswith(visible(algorithm)[:20].rstrip()) for line in out.splitlines())
            if format == "latex":
                assert f"{latex_escape(environment)}}} " in re.sub(" +", " ", out)
            if format == "markdown":
                page = MarkdownIt("commonmark").enable("table").render(out)
                cells = {html.unescape(cell) for cell in re.findall(r"<t[hd][^>]*>([^<]*)", page)}
                assert {" ".join(visible(name).split()) for name in names[:2]} <= {
                    " ".join(cell.split()) for cell in cells
                }
        output(collect_results.main, *common, "--format", "csv")
        frame = pd.read_csv(Path(place) / "results.csv", dtype=str, keep_default_na=False)
        if "\x00" not in "".join(names):  # at which pandas ends a cell
            assert {*frame.algorithm} == {encodable(name) for name in algorithms}
            assert {*frame.environment} == {*map(encodable, environments), "Avg"}
            assert {*frame.dataset} == {encodable(dataset)}
        out, _ = output(plan.main, "--input_dir", folder, "--difference", "5")
        assert not controls(out)
        status = json.loads(output(sweep_script.main, "status", "--json", "--output_dir", folder)[0])
        assert status["runs"][0]["about"]["algorithm"] == algorithm
        out, _ = output(sweep_script.main, "status", "--output_dir", folder)
        assert len(out.splitlines()) == 4  # the count, the failure, and the command that launches it again
        assert not controls(out)


@settings(max_examples=2, deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(st.tuples(NAMES, NAMES, NAMES).filter(lambda names: "ERM" not in names and "last" not in names))
@example(("$x$ | `b` <i>", "=cmd()\n\x1b[31m_%", "\ud800 猫"))
def test_reports_with_any_names(names):
    check_reports(names)


@pytest.mark.slow
@settings(max_examples=60, deadline=None)
@given(st.tuples(NAMES, NAMES, NAMES).filter(lambda names: "ERM" not in names and "last" not in names))
def test_reports_with_any_names_and_all_sections(names):
    check_reports(names, SECTIONS)


def test_a_page_with_hostile_names(tmp_path):
    names = ("ERM", "$x$<script>", "\x1b[1m\\frac{$")
    folder = write_sweep(tmp_path / "s$<b>\x1b\n", "<i>$d$", names[:2], (names[2], "</script>"))
    page, best = tmp_path / "page.html", tmp_path / "best.toml"
    output(collect_results.main, "--input_dir", folder, "--html", page, "--relaunch_best", best)
    check_page(page.read_text(encoding="utf-8"), names)
    content = tomllib.loads(best.read_text(encoding="utf-8"))
    assert content["datasets"] == ["<i>$d$"]
    assert content["hparams"]["$x$<script>"]["<i>$d$"] == "$x$<script>"


@pytest.mark.slow
@settings(max_examples=25, deadline=None)
@given(st.tuples(NAMES, NAMES, NAMES).filter(lambda names: "ERM" not in names and "last" not in names))
def test_pages_with_any_names(names):
    with tempfile.TemporaryDirectory() as place:
        folder = write_sweep(Path(place) / "sweep", names[2], ("ERM", names[0]), (names[1], "last"), 2)
        flags = ("--html", Path(place) / "page.html", "--figures", Path(place) / "figures")
        output(collect_results.main, "--input_dir", folder, *flags)
        check_page((Path(place) / "page.html").read_text(encoding="utf-8"), names[:2])
        assert list(Path(place).glob("figures/*.png"))


@pytest.mark.slow
@pytest.mark.parametrize("compiler", ["pdflatex", "lualatex", "tectonic"])
def test_latex_of_hostile_names_compiles(compiler, tmp_path):
    if shutil.which(compiler) is None:
        pytest.skip(f"needs {compiler} (Debian: texlive-latex-extra)")
    environments = HOSTILE[: len(HOSTILE) // 2]
    folder = write_sweep(tmp_path / "sweep", "$<d>_%\\", ("ERM", *HOSTILE), environments, 2)
    flags = ("--latex", *SECTIONS, "--output_dir", tmp_path)
    output(collect_results.main, "--input_dir", folder, *flags)
    interaction = [] if compiler == "tectonic" else ["-interaction=nonstopmode", "-halt-on-error"]
    done = subprocess.run(
        [compiler, *interaction, "results.tex"], cwd=tmp_path, capture_output=True, timeout=300, check=False
    )
    assert done.returncode == 0, done.stdout[-3000:]


WRONG = (None, True, 5, -1.5, float("inf"), "x", [], {}, [[1]], {"a": [1]}, 10**400)


def places(value, place=()):
    """The paths of all values within a JSON value."""
    entries = (
        value.items() if isinstance(value, dict) else enumerate(value if isinstance(value, list) else ())
    )
    for key, inner in entries:
        yield (*place, key)
        yield from places(inner, (*place, key))


@pytest.mark.slow
@pytest.mark.parametrize("name", ["0/results.jsonl", "0/run.json", "sweep.json", "bad/claim-1.json"])
def test_no_value_of_a_wrong_kind_stops_a_report_without_a_word(name, tmp_path):
    """Each value of a file in turn is replaced; a report and a status are made, or refused in one line."""
    folder = write_sweep(tmp_path / "sweep", "D", ("ERM", "B"), ("a", "b"))
    about = {"environments": ["a", "b"], "counts": {"a": {"x": 1}}, "weights": {"name": "none"}}
    about |= {"machines": [{"processor": "p", "threads": 1}], "data": {"checksum": "x"}, "settings": {}}
    (folder / "0" / "run.json").write_text(json.dumps(about))
    claim = {"pid": 1, "host": "h", "started": "1", "step": 1, "n_steps": 2, "seconds": 1.0, "first_step": 0}
    (folder / "bad" / "claim-1.json").write_text(json.dumps(claim))
    (folder / "bad" / "failed.json").unlink()
    file = folder / name
    first, *rest = file.read_text().split("\n") if name.endswith("jsonl") else [file.read_text()]
    flags = ("--input_dir", folder, "--output_dir", tmp_path, "--paired", "--gradients")
    for place in places(json.loads(first)):
        for wrong in WRONG:
            value = json.loads(first)
            *parents, last = place
            functools.reduce(operator.getitem, parents, value)[last] = wrong
            file.write_text("\n".join([json.dumps(value), *rest]))
            with contextlib.suppress(DomainBedError):
                output(collect_results.main, *flags)
            with contextlib.suppress(DomainBedError):
                output(sweep_script.main, "status", "--output_dir", folder)


def test_a_csv_cell_that_a_spreadsheet_would_calculate_is_said(tmp_path):
    folder = write_sweep(tmp_path / "sweep", "Data", ("ERM", "=cmd()"), ("-1+1|x", "last"))
    _, err = output(collect_results.main, "--input_dir", folder, "--format", "csv")
    notes = [line for line in err.splitlines() if "spreadsheet" in line]
    assert len(notes) == 1
    assert "-1+1|x, =cmd()" in notes[0]
    _, err = output(collect_results.main, "--input_dir", folder, "--format", "text")
    assert "spreadsheet" not in err


def test_output_and_logs_of_a_run_have_no_control_characters(tmp_path, forked_script):
    from PIL import Image

    data = tmp_path / "d$x$\x1b[31m"
    for number, environment in enumerate(("\x1b]0;e\x07", "a\nb", "\u202ec")):
        for label in ("<b>\x1b", "y\udcff"):
            (data / environment / label).mkdir(parents=True)
            for image in range(3):
                pixels = np.full((16, 16, 3), 80 * number + image, dtype=np.uint8)
                Image.fromarray(pixels).save(data / environment / label / f"{image}\x1b.png")
    hparams = '{"input_size": 16, "featurizer": "mlp", "mlp_width": 4, "batch_size": 2}'
    flags = ("--hparams", hparams, "--steps", "2", "--check_images", "--output_dir", tmp_path / "run\x1b")
    done = forked_script("train", "--dataset", data, *flags)
    assert done.returncode == 0, done.stderr
    logs = [(tmp_path / "run\x1b" / name).read_text() for name in ("out.txt", "err.txt")]
    for text in (*logs, done.stderr):
        assert not controls(text, "\n\t\r")
    assert "environment 1 (a\\nb, source): 6 images (<b>\\x1b 3, y\\xff 3)" in done.stdout
    missing = forked_script("train", "--dataset", f"{data}\n/none", *flags)
    assert missing.returncode == 2
    assert not controls(missing.stderr)
    assert missing.stderr.count("\n") == 1

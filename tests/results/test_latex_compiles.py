"""A report in LaTeX compiles to a PDF."""

from __future__ import annotations

import json
import shutil
import subprocess

import pytest

from domainbed.scripts import collect_results

pytestmark = pytest.mark.slow


def test_a_whole_report_compiles(vlcs, tmp_path):
    compiler = shutil.which("tectonic") or shutil.which("pdflatex")
    if compiler is None:
        pytest.skip("needs tectonic or pdflatex (Debian: texlive-latex-extra)")
    folder = tmp_path / "sweep"
    for dataset, algorithms in (("VLCS", ("ERM", "AgrSum", "IB_ERM")), ("my_own/photos & more", ("ERM",))):
        for algorithm in algorithms:
            vlcs.dataset, vlcs.algorithm = dataset, algorithm
            vlcs.write(folder)
            if algorithm == "ERM" and dataset == "VLCS":
                vlcs.drop_some()  # its averages are marked in later rows
    for results in folder.glob("*/results.jsonl"):
        lines = [json.loads(line) | {"agreement": 0.3} for line in results.read_text().splitlines()]
        results.write_text("".join(json.dumps(line) + "\n" for line in lines))
    flags = ["--latex", "--paired", "--gradients", "--aggregate", "--budget", "--selection", "iid", "oracle"]
    assert collect_results.main(["--input_dir", str(folder), "--output_dir", str(tmp_path), *flags]) == 0
    interaction = [] if compiler.endswith("tectonic") else ["-interaction=nonstopmode", "-halt-on-error"]
    done = subprocess.run(
        [compiler, *interaction, "results.tex"], cwd=tmp_path, capture_output=True, text=True, timeout=300
    )
    assert done.returncode == 0, done.stdout[-3000:]
    assert (tmp_path / "results.pdf").stat().st_size > 10_000

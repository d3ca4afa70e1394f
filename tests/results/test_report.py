from __future__ import annotations

import argparse
import logging

import pytest

from domainbed.results.report import SECTIONS
from domainbed.scripts import collect_results


class Tail:
    """A section that says how many records there are."""

    def add_arguments(self, parser: argparse.ArgumentParser) -> None:
        parser.add_argument("--tail", action="store_true")

    def wanted(self, args: argparse.Namespace) -> bool:
        return args.tail

    def write(self, context) -> None:
        print(f"tail: {len(context.records)} {context.format} {context.input_dir.name} {context.manifest}")


@pytest.fixture
def tail():
    SECTIONS["test_tail"] = Tail()
    yield
    del SECTIONS["test_tail"]


@pytest.mark.usefixtures("tail")
def test_a_wanted_section_comes_after_the_tables(vlcs, tmp_path, capsys):
    sweep = str(vlcs.write(tmp_path / "sweep"))
    collect_results.main(["--input_dir", sweep])
    assert "tail:" not in capsys.readouterr().out
    collect_results.main(["--input_dir", sweep, "--tail"])
    assert capsys.readouterr().out.splitlines()[-1] == "tail: 200 text sweep None"
    collect_results.main(["--input_dir", sweep, "--tail", "--latex"])
    assert capsys.readouterr().out.splitlines()[-2:] == ["tail: 200 latex sweep None", "\\end{document}"]
    assert "tail: 200 text sweep None\n" in (tmp_path / "sweep" / "results.txt").read_text()


def test_a_section_that_fails_to_import_is_named_and_skipped(vlcs, tmp_path, capsys, caplog):
    SECTIONS.add_lazy("test_broken", "domainbed.no_such_module:SECTION")
    SECTIONS["test_tail"] = Tail()
    try:
        with caplog.at_level(logging.WARNING):
            collect_results.main(["--input_dir", str(vlcs.write(tmp_path / "sweep")), "--tail"])
    finally:
        del SECTIONS["test_broken"]
        del SECTIONS["test_tail"]
    assert "report section test_broken is skipped: ModuleNotFoundError" in caplog.text
    assert capsys.readouterr().out.splitlines()[-1].startswith("tail: 200")

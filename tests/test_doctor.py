"""`domainbed doctor`: what it finds on this machine, and what it tries in a shared folder."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import tomllib
from pathlib import Path

import matplotlib
import pytest
import torch

from domainbed.doctor import EXTRAS, describe, examine
from domainbed.errors import RunError
from domainbed.scripts import doctor
from domainbed.shared_folder import CHECKS, check_shared_folder

ROOT = Path(__file__).parents[1]


@pytest.fixture(scope="module")
def facts():
    return examine()


def test_the_facts_are_those_of_this_process(facts):
    assert facts["versions"]["torch"] == torch.__version__.partition("+")[0]
    assert facts["processor"]["cores"] == len(os.sched_getaffinity(0))
    assert facts["memory"]["available"] <= facts["memory"]["total"]
    assert facts["devices"][-1] == "cpu"
    assert facts["data"]["EmojiStyles"] is None
    assert "--data_dir" in facts["data"]["PACS"]
    assert facts["plugins"]["domainbed_gs"] == "ok"


def test_every_extra_is_looked_for_and_named(facts):
    project = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    assert {*EXTRAS} == {*project["optional-dependencies"]} - {"dev"}
    assert facts["extras"]["plots"] == matplotlib.__version__
    lines = describe(facts | {"extras": dict.fromkeys(facts["extras"], "1.0") | {"heic": None, "ray": None}})
    assert any('missing: heic, ray (pip install "domainbed-gs[NAME]")' in line for line in lines)


def test_they_fit_a_screen(facts):
    lines = describe(facts | {"system": "Linux", "cache": {"folder": "/home/me/.cache", "writable": True}})
    assert len(lines) <= 40
    assert max(map(len, lines)) <= 80


def test_a_data_folder_that_is_missing_is_a_warning(tmp_path):
    facts = examine(str(tmp_path / "DATA"))
    assert any(
        each.endswith("DATA is no folder; `domainbed download` fills one") for each in facts["warnings"]
    )
    assert not any("looks into" in line for line in describe(facts))


def test_as_json_for_a_bug_report(capsys):
    assert doctor.main(["--json"]) == 0
    found = json.loads(capsys.readouterr().out)
    assert found["warnings"] == examine()["warnings"]
    assert "shared" not in found


def test_what_is_odd_is_a_warning(facts, tmp_path):
    environment = {**os.environ, "DOMAINBED_PLUGINS": "missing_plugin", "DOMAINBED_CACHE": "/proc/cache"}
    done = subprocess.run(
        [sys.executable, "-m", "domainbed.scripts.doctor"],
        env=environment | {"PYTHONPATH": ":".join(sys.path)},
        capture_output=True,
        text=True,
        timeout=300,
    )
    assert done.returncode == 0
    warnings = [line for line in done.stdout.splitlines() if line.startswith("warning: ")]
    assert any("plugin missing_plugin is skipped" in line for line in warnings)
    if os.getuid():  # root may write anywhere, as far as `os.access` knows
        assert any("DOMAINBED_CACHE" in line for line in warnings)


def test_a_folder_that_workers_can_share(tmp_path, capsys):
    assert check_shared_folder(tmp_path) == dict.fromkeys(CHECKS, "ok")
    assert doctor.main(["--shared", str(tmp_path)]) == 0
    assert "locks (sweep.json, the cache of images): ok" in capsys.readouterr().out
    assert list(tmp_path.iterdir()) == []


def test_a_folder_that_cannot_be_written_is_one_line():
    with pytest.raises(RunError, match="cannot write to /proc"):
        doctor.main(["--shared", "/proc"])

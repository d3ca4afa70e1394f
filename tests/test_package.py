"""Files beside the packages that tools read: the citation, the Dockerfile, the metadata."""

import re
import shutil
import subprocess
import sys
import tomllib
from pathlib import Path

import yaml

from domainbed.version import __version__

ROOT = Path(__file__).parents[1]


def test_the_citation_is_of_this_version():
    citation = yaml.safe_load((ROOT / "CITATION.cff").read_text(encoding="utf-8"))
    assert citation["version"] == __version__
    assert {"cff-version", "message", "title", "authors"} <= {*citation}


def test_a_linter_accepts_the_dockerfile():
    linter = shutil.which("hadolint", path=Path(sys.executable).parent)
    assert linter is not None
    done = subprocess.run([linter, ROOT / "Dockerfile"], capture_output=True, text=True)
    assert (done.returncode, done.stdout) == (0, "")


def test_the_source_distribution_names_files_that_exist():
    for line in (ROOT / "MANIFEST.in").read_text(encoding="utf-8").splitlines():
        command, *names = line.split()
        assert command == "global-exclude" or all((ROOT / name).exists() for name in names), line


def test_extras_that_documents_name_exist():
    extras = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"][
        "optional-dependencies"
    ]
    documents = [ROOT / "README.md", *(ROOT / "docs").glob("*.md"), *(ROOT / "domainbed").rglob("*.py")]
    for path in documents:
        for named in re.findall(r"(?:domainbed-gs|\.)\[([a-z,]+)\]\"", path.read_text(encoding="utf-8")):
            assert {*named.split(",")} <= {*extras}, f"{path.name}: {named}"

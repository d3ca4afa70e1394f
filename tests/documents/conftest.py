"""The documents, their blocks and commands, and a directory in which a reader would run them."""

import os
import re
import runpy
import shlex
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
import torchvision
from PIL import Image

ROOT = Path(__file__).parents[2]
DOCUMENTS = [ROOT / "README.md", ROOT / "CONTRIBUTING.md", *sorted((ROOT / "docs").glob("*.md"))]
SHORTENED = runpy.run_path(str(Path(__file__).parent / "shortened_commands.py"))["SHORTENED"]
INSTALLING = (
    "make api",
    "make lint",
    "make lowest",
    "make quick",
    "make release-check",
    "make run",
    "make test",
    "python3 -m venv .venv",
    '.venv/bin/python -m pip install -e ".[plots]"',
)
"""Commands that make an environment: run by the slow tests, and `make lint` and `make test` by CI itself."""


FILE_NAME = re.compile(r"# (\w+\.py)\n")
"""The first line of an example that is a file."""


def read_blocks(language, documents=DOCUMENTS):
    found = []
    for path in documents:
        text = path.read_text(encoding="utf-8")
        found += re.findall(rf"^```{language}\n(.*?)^```", text, re.DOTALL | re.MULTILINE)
    return found


def read_commands(documents=DOCUMENTS):
    lines = [line for block in read_blocks("console", documents) for line in block.splitlines()]
    return [
        re.sub(r"\s+#.*", "", line).replace(".venv/bin/python -m domainbed", "python -m domainbed")
        for line in lines
    ]


def runs_tests(command):
    """Whether a command runs tests. A slow test runs it, on a few of them."""
    return "-m pytest" in command


@pytest.fixture(scope="session")
def documents():
    """README.md, CONTRIBUTING.md and all of docs/."""
    return DOCUMENTS


@pytest.fixture(scope="session")
def blocks():
    """`blocks(language, documents)`: text of each such block of the documents, by default of all."""
    return read_blocks


@pytest.fixture(scope="session")
def commands():
    """`commands(documents)`: every command of the documents, by default of all."""
    return read_commands


@pytest.fixture(scope="session")
def shortened():
    """Command -> flags that make it short."""
    return SHORTENED


@pytest.fixture(params=[command for command in SHORTENED if "scripts.sweep launch" in command])
def long_sweep(request):
    """A command that starts a sweep of minutes or days."""
    return request.param


@pytest.fixture(params=list(filter(runs_tests, read_commands())))
def command_of_tests(request):
    """A command that runs tests."""
    return request.param


@pytest.fixture(scope="session")
def place(tmp_path_factory, write_mnist):
    """A directory with the checkout's sweep files, the examples' files, and data where commands name some."""
    directory = tmp_path_factory.mktemp("reader")
    for folder in ("sweeps", "docs"):
        (directory / folder).symlink_to(ROOT / folder)
    for block in read_blocks("python"):
        if name := FILE_NAME.match(block):
            (directory / name[1]).write_text(block)
    rng = np.random.default_rng(0)
    pacs = ("art_painting", "cartoon", "photo", "sketch")
    vlcs = ("Caltech101", "LabelMe", "SUN09", "VOC2007")
    office = ("Art", "Clipart", "Product", "Real World")
    roots = {
        "DATA/PACS": pacs,
        "DATA/VLCS": vlcs,
        "DATA/office_home": office,
        "path/to/root": ("a", "b", "c"),
    }
    for root, environments in roots.items():
        for environment in environments:
            for label in ("cat", "dog"):
                folder = directory / root / environment / label
                folder.mkdir(parents=True)
                for i in range(10):
                    pixels = rng.integers(0, 256, (32, 32, 3), dtype=np.uint8)
                    Image.fromarray(pixels).save(folder / f"{i}.png")
    (directory / "photos").mkdir()
    for name in ("photo.jpg", "photos/1.png", "photos/2.jpg"):
        Image.fromarray(rng.integers(0, 256, (48, 64, 3), dtype=np.uint8)).save(directory / name)
    write_mnist(directory / "DATA")
    # The paper's protocol starts from these weights, in torch's hub cache.
    weights = directory / "hub/checkpoints/alexnet-owt-7be5be79.pth"
    weights.parent.mkdir(parents=True)
    torch.save(torchvision.models.alexnet().state_dict(), weights)
    return directory


@pytest.fixture(scope="session")
def run(place, forked_python):
    """`run(command, input="", **environment)`: its completed process, in `place`."""
    paths = {
        "PYTHONPATH": f"{ROOT}:{place}",
        "PATH": f"{Path(sys.executable).parent}:{os.environ['PATH']}",
        "TORCH_HOME": str(place),
    }

    def carry_out(command, input="", **environment):
        program, *arguments = shlex.split(command)
        if program == "python":
            return forked_python(arguments, place, paths | environment, input)
        return subprocess.run(
            [program, *arguments],
            cwd=place,
            env=os.environ | paths | environment,
            input=input,
            capture_output=True,
            text=True,
            timeout=600,
        )

    return carry_out


@pytest.fixture
def printed_by(run):
    """`printed_by(documents)`: the lines that their commands print, one after the other."""
    return lambda documents: lines_of(documents, run)


def lines_of(documents, run):
    shortened, printed = dict(SHORTENED), []
    for document in documents:
        exported = {}
        for command in read_commands([document]):
            if command in INSTALLING or runs_tests(command):
                continue
            if command.startswith("export "):
                exported = dict([command.removeprefix("export ").split("=", 1)])
                continue
            done = run(f"{command} {shortened.pop(command, '')}", **exported)
            assert done.returncode == 0, f"{command}\n{done.stdout}\n{done.stderr}"
            printed += map(str.rstrip, done.stdout.splitlines())
    return printed

"""Every command and every example of the documents is run, in the order in which it stands there."""

import ast
import os
import re
import shlex
import shutil
import subprocess
import sys
import tarfile
import zipfile
from pathlib import Path

import numpy as np
import pytest
import torch
import torchvision
from PIL import Image

from domainbed.datasets.emoji_styles import EmojiStyles

ROOT = Path(__file__).parents[1]
DOCUMENTS = [ROOT / "README.md", ROOT / "CONTRIBUTING.md", *sorted((ROOT / "docs").glob("*.md"))]
SWEEP = "python -m domainbed.scripts.sweep launch"
COLLECT = "python -m domainbed.scripts.collect_results --input_dir"
TRAIN = "python -m domainbed.scripts.train"
STUDY = "python -m domainbed_gs.scripts.similarity"
ALIGNMENT = "python -m domainbed_gs.scripts.alignment"
FISHR = (
    "--dataset EmojiStyles --algorithm Fishr --test_envs 2 --steps 161 "
    """--hparams '{"batch_size": 32, "lr": 0.001, "penalty_anneal_iters": 48}' """
    "--output_dir runs/alignment/Fishr"
)
RESULTS = [ROOT / "docs" / "results.md", ROOT / "docs" / "pacs.md"]
"""Their blocks of text are what their commands print, from the records that lie beside them."""
STATISTICS = [ROOT / "docs" / "statistics.md"]
"""The same; its example writes its own records."""
NO_WEIGHTS = '{"pretrained": false}'
SMALL = "--skip_confirmation --n_trials 1 --steps 1"
PAPER = f"{SMALL} --datasets PACS --algorithms ERM --test_envs 0"
CONTROL = f"{SMALL} --algorithms AgrSum --test_envs 0 --grouping domain pooled"
PILOT = "--config sweeps/quickstart.toml --n_trials 4 --output_dir runs/pilot --skip_confirmation --quiet"
QUICK = """--steps 1 --hparams '{"pretrained": false, "batch_size": 2}'"""
SEARCH = "--skip_confirmation --n_trials 2 --n_hparams 2 --steps 1"
SINGLE_SOURCE = (
    "--datasets EmojiStyles --algorithms ERM --n_hparams 1 --target_sets single_source "
    "--output_dir runs/single_source"
)
COLORED = f"{SMALL} --algorithms ERM Fishr"
SIMILARITY = (
    "--dataset EmojiStyles --test_envs 3 --splits 70/10/20 --steps 161 "
    """--hparams '{"batch_size": 32, "lr": 0.001}' --output_dir runs/similarity_3"""
)

PACS_SIMILARITY = (
    "--dataset PACS --data_dir DATA --test_envs sketch --splits 70/10/20 --steps 101 "
    """--hparams '{"featurizer": "efficientnet_lite0", "input_size": 96, "batch_size": 16, """
    """"freeze_bn": true, "data_augmentation": false, "freeze": "blocks.5", "lr": 3e-4}' """
    "--output_dir runs/pacs_similarity/last_3"
)

FLAT = (
    "--datasets EmojiStyles --algorithms ERM SAM DGSAM --n_trials 10 --n_hparams 1 --single_test_envs "
    "--test_envs 2 --steps 300 --output_dir runs/sharpness"
)
SHARPNESS = "python -m domainbed_gs.scripts.sharpness --sweep runs/sharpness"

SHORTENED = {
    f"{SWEEP} --algorithms AgrSum": f"{SMALL} --n_hparams 1 --single_test_envs",
    f"{SWEEP} --config sweeps/iccv2021_table1.toml --data_dir DATA": PAPER,
    f"{SWEEP} --config sweeps/colored_digits.toml": COLORED,
    f"{SWEEP} --config sweeps/colored_digits.toml --preset grey": SMALL,
    f"{SWEEP} --config sweeps/colored_digits.toml --preset single": COLORED,
    f"{SWEEP} --config sweeps/colored_mnist_irm.toml --data_dir DATA": COLORED,
    f"{SWEEP} --config sweeps/colored_mnist.toml --data_dir DATA": f"{SEARCH} --algorithms ERM SANDMask",
    f"{SWEEP} --config sweeps/iccv2021_control.toml --preset emoji_styles": CONTROL,
    f"{SWEEP} --config sweeps/quickstart.toml --skip_confirmation --quiet": SMALL,
    f"{SWEEP} {SINGLE_SOURCE}": SMALL,
    f"{SWEEP} {FLAT}": f"{SMALL} --algorithms ERM DGSAM",
    SHARPNESS: "--samples 4 --ascent_steps 1 --lanczos_steps 2 --probes 2 --directions 1 --points 3",
    f"{SWEEP} {PILOT}": "--n_trials 2 --steps 1 --algorithms ERM AgrSum --test_envs 0",
    f"{STUDY} --dataset EmojiStyles --test_envs 2 --output_dir runs/similarity": "--steps 2 --samples 2",
    f"{STUDY} {SIMILARITY}": "--steps 2 --samples 2",
    f"{STUDY} {PACS_SIMILARITY}": "--steps 2 --samples 2 --output_dir runs/pacs_similarity/short",
    f"{ALIGNMENT} {FISHR}": "--steps 2 --samples 2 --probes 2",
    f"{ALIGNMENT} --model runs/alignment/Fishr": "--samples 2 --probes 2",
    f"{TRAIN} --dataset EmojiStyles --algorithm AgrSum --test_envs 2": "--steps 2",
    f"{TRAIN} --dataset path/to/root --test_envs 0 --hparams '{NO_WEIGHTS}' --output_dir mine": QUICK,
}
"""Commands that take minutes or days as they stand, and flags that make them short."""

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


def blocks(language, documents=DOCUMENTS):
    found = []
    for path in documents:
        text = path.read_text(encoding="utf-8")
        found += re.findall(rf"^```{language}\n(.*?)^```", text, re.DOTALL | re.MULTILINE)
    return found


def commands(documents=DOCUMENTS):
    lines = [line for block in blocks("console", documents) for line in block.splitlines()]
    return [
        re.sub(r"\s+#.*", "", line).replace(".venv/bin/python -m domainbed", "python -m domainbed")
        for line in lines
    ]


TESTING = [command for command in commands() if "-m pytest" in command]
"""Commands that run tests: run by a slow test, on a few of them."""


@pytest.fixture(scope="module")
def place(tmp_path_factory, write_mnist):
    """A directory with the checkout's sweep files, the examples' files, and data where commands name some."""
    directory = tmp_path_factory.mktemp("reader")
    for folder in ("sweeps", "docs"):
        (directory / folder).symlink_to(ROOT / folder)
    for block in blocks("python"):
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


@pytest.fixture(scope="module")
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


def lines_of(documents, run):
    """What the commands of some documents print, one after the other."""
    shortened, printed = dict(SHORTENED), []
    for document in documents:
        exported = {}
        for command in commands([document]):
            if command in INSTALLING or command in TESTING:
                continue
            if command.startswith("export "):
                exported = dict([command.removeprefix("export ").split("=", 1)])
                continue
            done = run(f"{command} {shortened.pop(command, '')}", **exported)
            assert done.returncode == 0, f"{command}\n{done.stdout}\n{done.stderr}"
            printed += map(str.rstrip, done.stdout.splitlines())
    return printed


def test_no_document_lacks_a_command_that_is_shortened():
    assert set(SHORTENED) <= set(commands())


@pytest.mark.slow
def test_our_results_are_what_their_commands_print(run):
    printed = lines_of(RESULTS, run)
    assert {line for block in blocks("text", RESULTS) for line in block.splitlines()} <= {"...", *printed}


def test_every_command_of_the_readme_does_what_it_says(place, run):
    lines_of([ROOT / "README.md"], run)
    assert (place / "runs/quickstart/figures/EmojiStyles.png").stat().st_size > 10_000
    assert "Dataset: PACS, target accuracy (%)" in (place / "runs/iccv2021_table1/results.txt").read_text()


@pytest.mark.slow
def test_every_other_command_does_what_it_says(run):
    printed = lines_of([path for path in DOCUMENTS if path not in RESULTS], run)
    assert {line for block in blocks("text", STATISTICS) for line in block.splitlines()} <= {"...", *printed}


@pytest.mark.parametrize("command", [command for command in SHORTENED if command.startswith(SWEEP)])
def test_a_sweep_asks_first_if_started_as_it_stands(command, place, run):
    asked = run(
        command.replace(" --skip_confirmation", "") + " --output_dir asked --estimate_seconds 0", input="n\n"
    )
    assert asked.returncode == 0, asked.stderr
    assert asked.stdout.endswith("Are you sure? (y/n) Nevermind!\n")
    assert not (place / "asked").exists()


def test_the_examples_in_python(run):
    plain, using = (block for block in blocks("python") if block.startswith("import"))
    done = run(shlex.join(["python", "-c", plain]))
    assert done.returncode == 0, done.stderr
    assert "agreement" in done.stdout
    trained = run(f"{TRAIN} --dataset EmojiStyles --steps 1 --output_dir train_output_for_python")
    assert trained.returncode == 0, trained.stderr
    done = run(shlex.join(["python", "-c", using.replace("train_output", "train_output_for_python")]))
    assert done.returncode == 0, done.stderr
    (name,) = ast.literal_eval(done.stdout)
    assert name in EmojiStyles(None, [], {}).class_names
    trained = run(
        f"{TRAIN} --dataset ShiftedGaussians --steps 2 --output_dir gaussians", DOMAINBED_PLUGINS="my_data"
    )
    assert trained.returncode == 0, trained.stderr


def test_make_runs_the_lines_that_the_readme_gives_for_it():
    shown = subprocess.run(["make", "-n", "run"], cwd=ROOT, capture_output=True, text=True, check=True).stdout
    text = (ROOT / "README.md").read_text(encoding="utf-8")
    made = [line for line in shown.splitlines() if line.startswith(".venv/bin/python -m domainbed")]
    assert len(made) == 2
    assert all(f"\n{line}\n" in text for line in made)


def test_a_hook_checks_before_a_commit_what_make_lint_checks():
    shown = subprocess.run(
        ["make", "-n", "lint"], cwd=ROOT, capture_output=True, text=True, check=True
    ).stdout
    checks = [line for line in shown.splitlines() if line.startswith((".venv/bin/ruff", ".venv/bin/mypy"))]
    hooks = (ROOT / ".pre-commit-config.yaml").read_text(encoding="utf-8")
    assert re.findall(r"entry: (.*)", hooks) == checks


def test_files_that_documents_name_are_there():
    for path in DOCUMENTS:
        for name in re.findall(r"`((?:\w+/)*\w+\.py)`", path.read_text(encoding="utf-8")):
            if not name.startswith("my_") and not name.endswith("/NAME.py"):
                found = [ROOT / name] if "/" in name else [*ROOT.glob(f"domainbed*/**/{name}")]
                assert any(file.is_file() for file in found), f"{path.name}: {name}"


def test_make_quick_names_tests_that_exist():
    command = ["make", "-n", "quick"]
    shown = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=True).stdout
    patterns = [word for word in shown.split() if word.startswith("tests/")]
    assert "tests/gradients" in patterns
    assert not [pattern for pattern in patterns if not list(ROOT.glob(pattern))]


def test_links_and_pictures_are_there():
    for path in [*DOCUMENTS, ROOT / "CHANGELOG.md"]:
        for target, anchor in re.findall(
            r"\]\((?!http)([^)#]+)(?:#([^)]+))?\)", path.read_text(encoding="utf-8")
        ):
            file = path.parent / target
            assert file.exists(), f"{path.name}: {target}"
            headings = (
                re.findall(r"^#+ (.*)", file.read_text(encoding="utf-8"), re.MULTILINE) if anchor else []
            )
            anchors = [re.sub(r"[^\w -]", "", heading.lower()).replace(" ", "-") for heading in headings]
            assert not anchor or anchor in anchors, f"{path.name}: {target}#{anchor}"


@pytest.mark.slow
def test_training_as_the_readme_has_it(place, run):
    done = run(f"{TRAIN} --dataset EmojiStyles --algorithm AgrSum --test_envs 2 --output_dir full")
    assert done.returncode == 0, done.stderr
    assert (place / "full/done").exists()


@pytest.fixture
def clone(tmp_path):
    """A fresh clone whose quickstart has two trials instead of eight, and three steps."""
    path = tmp_path / "clone"
    subprocess.run(["git", "clone", "--quiet", ROOT, path], check=True)
    quickstart = path / "sweeps/quickstart.toml"
    shorter = (
        quickstart.read_text().replace("n_trials = 8", "n_trials = 2").replace("steps = 121", "steps = 3")
    )
    quickstart.write_text(shorter)
    yield path
    shutil.rmtree(path)


def as_a_stranger(command, clone):
    """Run a command in the clone, with nothing of this process's environment in the way."""
    environment = {
        name: value for name, value in os.environ.items() if name not in ("PYTHONPATH", "VIRTUAL_ENV")
    }
    done = subprocess.run(command, shell=True, cwd=clone, env=environment, capture_output=True, text=True)
    assert done.returncode == 0, f"{command}\n{done.stdout}\n{done.stderr}"
    return done.stdout


@pytest.mark.slow
def test_make_run_with_nothing_prepared_and_again_at_no_cost(clone):
    for expected in ("About to launch 32 jobs.", "Nothing to launch in runs/quickstart."):
        shown = as_a_stranger("make run", clone)
        assert expected in shown
        assert "Figure: runs/quickstart/figures/EmojiStyles.png" in shown


@pytest.mark.slow
def test_the_lines_that_need_no_make(clone):
    block = next(block for block in blocks("console") if block.startswith("python3 -m venv"))
    shown = [as_a_stranger(line, clone) for line in block.splitlines()]
    assert "Figure: runs/quickstart/figures/EmojiStyles.png" in shown[-1]


@pytest.mark.slow
@pytest.mark.parametrize("command", TESTING)
def test_commands_that_run_tests(command):
    few = "tests/test_seeds.py tests/results/test_latex_compiles.py"
    done = subprocess.run(
        f"{command.replace('.venv/bin/python', shlex.quote(sys.executable))} {few}",
        shell=True,
        cwd=ROOT,
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0, done.stdout


@pytest.mark.slow
def test_a_release_works_in_an_environment_of_its_own(clone):
    listed = as_a_stranger("make release-check", clone)
    assert all(name in listed for name in ("AgrSum", "EmojiStyles", "alexnet", "domainbed_gs: ok"))
    sweeps = {f"domainbed/sweeps/{path.name}" for path in (clone / "sweeps").glob("*.toml")}
    with zipfile.ZipFile(next((clone / "dist").glob("*.whl"))) as wheel:
        installed = {*wheel.namelist()}
    assert installed >= sweeps | {"domainbed/py.typed", "domainbed_gs/py.typed"}
    assert not [name for name in installed if name.startswith(("tests/", "docs/", "benchmarks/"))]
    with tarfile.open(next((clone / "dist").glob("*.tar.gz"))) as source:
        files = {name.partition("/")[2] for name in source.getnames()}
    assert files >= {
        "sweeps/quickstart.toml",
        "docs/report.md",
        "tests/conftest.py",
        "Makefile",
        "CITATION.cff",
    }
    fresh = clone / "build/fresh"
    place = clone.parent / "empty"
    place.mkdir()
    for command in (
        "domainbed doctor",
        "domainbed list",
        "domainbed sweep launch --config quickstart --steps 2 --skip_confirmation --quiet",
        "domainbed collect --input_dir runs/quickstart --paired --html page.html",
    ):
        as_a_stranger(f"{fresh}/bin/{command}", place)
    assert (place / "page.html").stat().st_size > 10_000
    shutil.rmtree(place)
    for command in (
        f"{TRAIN} --dataset EmojiStyles --algorithm AgrSum --steps 1 --output_dir sweep/run",
        f"{COLLECT} sweep --html page.html",
        """python -c "from domainbed_gs.report.published import load; load('iccv2021', 'iccv2021')\"""",
    ):
        as_a_stranger(f"bin/{command}", fresh)
    assert (fresh / "page.html").stat().st_size > 10_000

"""Every command and every example of the documents is run, in the order in which it stands there."""

import ast
import shlex
import subprocess
import sys
from pathlib import Path

import pytest

from domainbed.datasets.emoji_styles import EmojiStyles

ROOT = Path(__file__).parents[2]
TRAIN = "python -m domainbed.scripts.train"
RESULTS = [ROOT / "docs" / name for name in ("results.md", "pacs.md", "mechanisms.md")]
"""Their blocks of text are what their commands print, from the records that lie beside them."""
STATISTICS = [ROOT / "docs" / "statistics.md"]
"""The same; its example writes its own records."""


def test_no_document_lacks_a_command_that_is_shortened(shortened, commands):
    assert set(shortened) <= set(commands())


@pytest.mark.slow
def test_our_results_are_what_their_commands_print(printed_by, blocks):
    printed = printed_by(RESULTS)
    assert {line for block in blocks("text", RESULTS) for line in block.splitlines()} <= {"...", *printed}


def test_every_command_of_the_readme_does_what_it_says(place, printed_by):
    printed_by([ROOT / "README.md"])
    assert (place / "runs/quickstart/figures/EmojiStyles.png").stat().st_size > 10_000
    assert "Dataset: PACS, target accuracy (%)" in (place / "runs/iccv2021_table1/results.txt").read_text()


@pytest.mark.slow
def test_every_other_command_does_what_it_says(printed_by, blocks, documents):
    printed = printed_by([path for path in documents if path not in RESULTS])
    assert {line for block in blocks("text", STATISTICS) for line in block.splitlines()} <= {"...", *printed}


def test_a_sweep_asks_first_if_started_as_it_stands(long_sweep, place, run):
    asked = run(
        long_sweep.replace(" --skip_confirmation", "") + " --output_dir asked --estimate_seconds 0",
        input="n\n",
    )
    assert asked.returncode == 0, asked.stderr
    assert asked.stdout.endswith("Are you sure? (y/n) Nevermind!\n")
    assert not (place / "asked").exists()


def test_the_examples_in_python(run, blocks):
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


@pytest.mark.slow
def test_training_as_the_readme_has_it(place, run):
    done = run(f"{TRAIN} --dataset EmojiStyles --algorithm AgrSum --test_envs 2 --output_dir full")
    assert done.returncode == 0, done.stderr
    assert (place / "full/done").exists()


@pytest.mark.slow
def test_commands_that_run_tests(command_of_tests):
    few = "tests/test_seeds.py tests/results/test_latex_compiles.py"
    done = subprocess.run(
        f"{command_of_tests.replace('.venv/bin/python', shlex.quote(sys.executable))} {few}",
        shell=True,
        cwd=ROOT,
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0, done.stdout

"""Mutants: which places are changed and how, and a run over a small project."""

import ast
import runpy
import subprocess
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
MUTANTS = runpy.run_path(str(ROOT / "benchmarks" / "mutants.py"))

SOURCE = '''"""Docstring 1 + 1."""
def größe(x: "1 + 1", n=2) -> int:
    print("ä", n)
    if x <= n < 10 and n is not None:
        return f"{n + 1}" if True else (x
            + n)
    return x - n * (0.5)
'''


def test_every_kind_of_place_is_changed_and_nothing_else():
    mutants = MUTANTS["mutants_of"]("a.py", SOURCE)
    found = [(each.line, each.kind, each.before.strip(), each.after.strip()) for each in mutants]
    assert found == [
        (2, "constant", "2", "3"),
        (3, "removed call", 'print("ä", n)', "pass"),
        (4, "comparison", "<=", "<"),
        (4, "comparison", "<", "<="),
        (4, "constant", "10", "11"),
        (4, "comparison", "is not", "is"),
        (5, "constant", "True", "False"),
        (7, "arithmetic", "-", "+"),
        (7, "constant", "0.5", "1.5"),
    ]
    for mutant in mutants:
        changed = mutant.apply(SOURCE)
        assert changed != SOURCE
        ast.parse(changed)


def test_files_of_the_packages_can_be_mutated():
    for path in MUTANTS["core_files"](ROOT)[::20]:
        source = (ROOT / path).read_text(encoding="utf-8")
        for mutant in MUTANTS["mutants_of"](path, source)[::5]:
            ast.parse(mutant.apply(source))


def test_a_greater_sample_adds_to_a_smaller_one_of_all_kinds():
    mutants = MUTANTS["mutants_of"]("a.py", SOURCE)
    small, large = (MUTANTS["sample"](mutants, count, 3) for count in (4, 7))
    assert large[:4] == small
    assert {each.kind for each in small} == set(MUTANTS["KINDS"])
    assert MUTANTS["sample"](mutants, 7, 4) != large


@pytest.mark.parametrize(
    ("path", "tests"),
    [
        ("domainbed/gradients/gram.py", ["tests/gradients/test_gram.py", "tests/gradients"]),
        ("domainbed/gradients/layers.py", ["tests/gradients"]),
        ("domainbed/seeds.py", ["tests/test_seeds.py"]),
        ("domainbed_gs/splits.py", ["tests/domainbed_gs/test_splits.py", "tests/domainbed_gs"]),
    ],
)
def test_the_tests_of_a_file_come_before_those_of_its_room(path, tests):
    assert MUTANTS["tests_of"](path, ROOT) == tests


@pytest.mark.slow
def test_a_run_tells_what_is_noticed_and_resumes(tmp_path, capfd, monkeypatch):
    for name, text in {
        "domainbed/room/sums.py": "def add(a, b):\n    return a + b\n\n\ndef unused(a):\n    return a > 1\n",
        "tests/room/test_sums.py": "from domainbed.room.sums import add\n\n\n"
        "def test_add():\n    assert add(2, 3) == 5\n",
    }.items():
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).write_text(text)
    subprocess.run(["git", "init", "-q"], cwd=tmp_path, check=True)
    monkeypatch.delenv("PYTEST_ADDOPTS", raising=False)
    arguments = (tmp_path, ["domainbed/room/sums.py"], 9, 0, tmp_path / "results.jsonl")
    counts = MUTANTS["run"](*arguments)
    assert counts == {"killed": 1, "not noticed": 2}
    shown = capfd.readouterr().out
    assert "killed             domainbed/room/sums.py:2  + -> -  in: return a + b" in shown
    assert "not noticed        domainbed/room/sums.py:6  > -> >=  in: return a > 1" in shown
    (tmp_path / "tests/room/test_sums.py").write_text("def test():\n    assert False\n")
    assert MUTANTS["run"](*arguments) == counts

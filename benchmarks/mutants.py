"""Which simple mistakes in the code the tests notice.

    python benchmarks/mutants.py [--count 8] [--seed 0] [--files domainbed/gradients/gram.py ...]

Changes the code in one place, runs the tests that belong to the file in a copy of the repository, and prints
whether they fail: a comparison, an arithmetic operator or a constant becomes another one, or a call is
removed. First runs the tests of the file itself; if they pass, those of its whole room. A mutant that is not
noticed is a missing test, unless it changes nothing that anyone could see: look at each. Mutants differ by
seed; a greater count adds to those of a smaller one. Results are kept, so the same command resumes.
"""

from __future__ import annotations

import argparse
import ast
import json
import os
import random
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass
from itertools import chain, zip_longest
from pathlib import Path

from tqdm import tqdm

ROOT = Path(__file__).parents[1]
PACKAGES = ("domainbed", "domainbed_gs")
FACES = ("lib", "test", "scripts")  # re-exports and command lines

COMPARISONS = {"<": "<=", "<=": "<", ">": ">=", ">=": ">", "==": "!=", "!=": "==", "is": "is not"}
COMPARISONS |= {"is not": "is", "in": "not in", "not in": "in"}
ARITHMETIC = {"+": "-", "-": "+", "*": "/", "/": "*", "//": "*", "%": "*", "**": "*", "@": "*"}
KINDS = ("comparison", "arithmetic", "constant", "removed call")

KILLED, SLOW, UNNOTICED = "killed", "killed (too slow)", "not noticed"


@dataclass(frozen=True)
class Mutant:
    """One change of one file.

    Attributes:
        path: of the file, relative to the repository.
        line: number of the line, from 1.
        start: offset of the first byte that is replaced in the file.
        kind: one of `KINDS`.
        before: the text that is replaced.
        after: what replaces it.
        context: the line, so that results are not reused for changed code.
    """

    path: str
    line: int
    start: int
    kind: str
    before: str
    after: str
    context: str

    def apply(self, source: str) -> str:
        """The file's source with the change."""
        data, before = source.encode(), self.before.encode()
        assert data[self.start : self.start + len(before)] == before
        return (data[: self.start] + self.after.encode() + data[self.start + len(before) :]).decode()


def mutants_of(path: str, source: str) -> list[Mutant]:
    """All mutants of a file, in its order. Annotations, docstrings and f-strings are left alone."""
    data = source.encode()
    lines = data.splitlines(keepends=True)
    starts = [0]
    for each in lines:
        starts.append(starts[-1] + len(each))

    def mutant(kind: str, begin: tuple[int, int], end: tuple[int, int], after: str) -> Mutant:
        start, stop = (starts[line - 1] + column for line, column in (begin, end))
        before = data[start:stop].decode()
        return Mutant(path, begin[0], start, kind, before, after, lines[begin[0] - 1].decode().strip())

    found = []
    for node in _nodes(ast.parse(source)):
        if isinstance(node, ast.Compare):
            pairs = zip([node.left, *node.comparators], node.comparators, strict=False)
            found += [m for a, b in pairs for m in _operators("comparison", a, b, COMPARISONS, mutant)]
        elif isinstance(node, ast.BinOp):
            found += _operators("arithmetic", node.left, node.right, ARITHMETIC, mutant)
        elif isinstance(node, ast.Constant) and isinstance(node.value, int | float):
            after = str(not node.value if isinstance(node.value, bool) else node.value + 1)
            found.append(mutant("constant", _begin(node), _end(node), after))
        elif isinstance(node, ast.Expr) and isinstance(node.value, ast.Call):
            found.append(mutant("removed call", _begin(node), _end(node), "pass"))
    return sorted(found, key=lambda each: each.start)


def _nodes(node: ast.AST) -> Iterator[ast.AST]:
    """`node` and all below it, but for annotations and f-strings."""
    yield node
    for name, value in ast.iter_fields(node):
        if name in ("annotation", "returns"):
            continue
        for child in value if isinstance(value, list) else [value]:
            if isinstance(child, ast.AST) and not isinstance(child, ast.JoinedStr):
                yield from _nodes(child)


def _operators(kind, left, right, others, mutant) -> list[Mutant]:
    """The mutant of the operator between two operands; none where brackets or comments stand between them."""
    if left.end_lineno != right.lineno:
        return []
    begin, end = _end(left), _begin(right)
    whole = mutant(kind, begin, end, "").before
    operator = whole.strip()
    if operator not in others:
        return []
    return [mutant(kind, begin, end, whole.replace(operator, others[operator]))]


def _begin(node: ast.AST) -> tuple[int, int]:
    return node.lineno, node.col_offset


def _end(node: ast.AST) -> tuple[int, int]:
    return node.end_lineno, node.end_col_offset


def sample(mutants: Sequence[Mutant], count: int, seed: int) -> list[Mutant]:
    """`count` mutants, as many of each kind as possible. A greater count only adds to them."""
    shuffled = random.Random(seed).sample(mutants, len(mutants))
    kinds = ([each for each in shuffled if each.kind == kind] for kind in KINDS)
    return [each for each in chain.from_iterable(zip_longest(*kinds)) if each is not None][:count]


def tests_of(path: str, root: Path) -> list[str]:
    """The tests that belong to a file, in the order in which they are run: its own, those of its room."""
    package, *rooms, name = Path(path).with_suffix("").parts
    folder = Path("tests", *([] if package == PACKAGES[0] else [package]), *rooms)
    own = folder / f"test_{name}.py"
    found = [own] if (root / own).is_file() else []
    while not (root / folder).is_dir():
        folder = folder.parent
    if folder != Path("tests"):
        found.append(folder)
    return [str(each) for each in found] or ["tests"]


def core_files(root: Path) -> list[str]:
    """The files to mutate by default."""
    files = chain.from_iterable(sorted((root / package).rglob("*.py")) for package in PACKAGES)
    paths = [file.relative_to(root) for file in files]
    return [str(path) for path in paths if path.name != "__init__.py" and path.parts[1] not in FACES]


def copied(root: Path, scratch: Path) -> Path:
    """A copy of the repository's files in `scratch`."""
    names = subprocess.run(
        ["git", "ls-files", "-co", "--exclude-standard"], cwd=root, check=True, capture_output=True, text=True
    ).stdout.splitlines()
    for name in names:
        if (root / name).is_file():
            (scratch / name).parent.mkdir(parents=True, exist_ok=True)
            shutil.copy2(root / name, scratch / name)
    return scratch


class Judge:
    """Runs tests in a copy of the repository."""

    def __init__(self, copy: Path) -> None:
        self._copy = copy
        self._seconds: dict[str, float] = {}

    def verdict(self, mutant: Mutant) -> str:
        """Whether a test of the file or of its room fails with the change. Tests must pass without it."""
        file = self._copy / mutant.path
        source = file.read_text(encoding="utf-8")
        for tests in tests_of(mutant.path, self._copy):
            limit = 60 + 5 * self._without_change(tests)
            try:
                file.write_text(mutant.apply(source), encoding="utf-8")
                status = self._run(tests, limit)
            finally:
                file.write_text(source, encoding="utf-8")
            if status != 0:
                return SLOW if status is None else KILLED
        return UNNOTICED

    def _without_change(self, tests: str) -> float:
        """Seconds that the tests take."""
        if tests not in self._seconds:
            began = time.monotonic()
            if self._run(tests, None) != 0:
                sys.exit(f"{tests} does not pass without a mutation; mend it first")
            self._seconds[tests] = time.monotonic() - began
        return self._seconds[tests]

    def _run(self, tests: str, limit: float | None) -> int | None:
        """Exit status; None after `limit` seconds."""
        environment = os.environ | {"PYTHONPATH": str(self._copy), "PYTHONDONTWRITEBYTECODE": "1"}
        command = [sys.executable, "-m", "pytest", "-q", "-x", "-p", "no:cacheprovider", tests]
        with subprocess.Popen(
            command,
            cwd=self._copy,
            env=environment,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
            start_new_session=True,
        ) as process:
            try:
                return process.wait(limit)
            except subprocess.TimeoutExpired:
                return None
            finally:  # also after Ctrl-C, and what a test left running
                if process.poll() is None:
                    os.killpg(process.pid, signal.SIGKILL)


def run(root: Path, files: Sequence[str], count: int, seed: int, results: Path) -> Counter[str]:
    """Judge a sample of the mutants of `files`, print each verdict, and count them."""
    every = [m for file in files for m in mutants_of(file, (root / file).read_text(encoding="utf-8"))]
    known = {}
    if results.exists():
        for line in results.read_text(encoding="utf-8").splitlines():
            record = json.loads(line)
            known[Mutant(**record["mutant"])] = record["verdict"]
    counts: Counter[str] = Counter()
    with tempfile.TemporaryDirectory() as scratch, results.open("a", encoding="utf-8") as file:
        judge = Judge(copied(root, Path(scratch)))
        for mutant in tqdm(sample(every, count, seed), unit="mutant"):
            verdict = known.get(mutant)
            if verdict is None:
                verdict = judge.verdict(mutant)
                file.write(json.dumps({"mutant": asdict(mutant), "verdict": verdict}) + "\n")
                file.flush()
            counts[verdict] += 1
            change = f"{mutant.before.strip()} -> {mutant.after.strip()}"
            tqdm.write(f"{verdict:18} {mutant.path}:{mutant.line}  {change}  in: {mutant.context}")
    return counts


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument(
        "--count", type=int, default=8, help="number of mutants; each runs one or two sets of tests"
    )
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--files", nargs="+", help="files to change, by default all but faces")
    parser.add_argument(
        "--results", type=Path, help="a file of JSON lines; by default one for the seed in /tmp"
    )
    args = parser.parse_args()
    results = args.results or Path(tempfile.gettempdir()) / f"domainbed-mutants-{args.seed}.jsonl"
    counts = run(ROOT, args.files or core_files(ROOT), args.count, args.seed, results)
    print(", ".join(f"{number} {verdict}" for verdict, number in sorted(counts.items())))
    print(f"Results: {results}")


if __name__ == "__main__":
    main()

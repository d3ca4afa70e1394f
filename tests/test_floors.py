"""The floors: which room imports which. Every import is read, also those within functions."""

import ast
import graphlib
import importlib.util
import re
from collections.abc import Iterator
from dataclasses import dataclass
from functools import cache
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]

FLOORS = """
ground      version platforms escaping errors json_input
ground      files plugins registry hparams seeds console process_group cores memory threads accelerators
ground      metrics command_line
records     records
data        datasets images
networks    networks
gradients   gradients
algorithms  algorithms hparams_registry
selection   model_selection predictions
training    training inference
sweep       sweep command_launchers
results     download results
doctor      doctor shared_folder
listing     listing
scripts     scripts
plugin      domainbed_gs.algorithms domainbed_gs.alexnet domainbed_gs.splits domainbed_gs.selection
plugin      domainbed_gs.curvature domainbed_gs.trained_models
plugin      domainbed_gs.report domainbed_gs.studies
plugin      domainbed_gs.similarity domainbed_gs.sharpness domainbed_gs.alignment
plugin      domainbed_gs.scripts domainbed_gs
"""
"""From the ground up, each floor from left to right: a room imports from the rooms before it only.

A room is a module or a package of `domainbed`, or of the plugin, with all that lies in it.
"""

FACES = ("domainbed", "domainbed.lib", "domainbed.test")
"""They import from any room, and no room imports them."""

RANKS = {
    name if name.startswith("domainbed_gs") else f"domainbed.{name}": rank
    for rank, name in enumerate(name for line in FLOORS.strip().splitlines() for name in line.split()[1:])
}

TOP = len(RANKS)

REGISTRATIONS = ("import_module", "add_lazy", "add_package")
"""Functions that import a module by its name, now or later."""


@dataclass(frozen=True)
class Import:
    """`name` is bound to `target`, such as domainbed.seeds.seed_hash, which lies in the module `module`."""

    name: str
    target: str
    module: str


class Module:
    """One file and what it imports from modules of these `names`."""

    def __init__(self, path: str, source: str, names: frozenset[str]) -> None:
        self.path = path
        self.name = module_name(path)
        tree = ast.parse(source)
        package = self.name if path.endswith("__init__.py") else self.name.rpartition(".")[0]
        self.imports = [found for found in _imports(tree, package, names) if found.module in names]
        self.bindings = {found.name: found.target for found in self.imports}
        self.registered = {name for name in _registered(tree) if name in names}
        self.private = list(private_attributes(tree))
        self.classes = {node.name: node for node in ast.walk(tree) if isinstance(node, ast.ClassDef)}
        self.members = {name: private_members(node) for name, node in self.classes.items()}

    def resolve(self, node: ast.expr) -> str | None:
        """Full name of a class of this module, or of what an expression such as `base.Algorithm` imports."""
        if isinstance(node, ast.Name):
            here = f"{self.name}.{node.id}" if node.id in self.classes else None
            return self.bindings.get(node.id, here)
        if isinstance(node, ast.Attribute) and (owner := self.resolve(node.value)):
            return f"{owner}.{node.attr}"
        return None


def module_name(path: str) -> str:
    return path.removesuffix(".py").removesuffix("/__init__").replace("/", ".")


def _imports(tree: ast.AST, package: str, names: frozenset[str]) -> Iterator[Import]:
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            for alias in node.names:
                bound = alias.asname or alias.name.partition(".")[0]
                yield Import(bound, alias.name if alias.asname else bound, alias.name)
        elif isinstance(node, ast.ImportFrom):
            home = importlib.util.resolve_name("." * node.level + (node.module or ""), package)
            for alias in node.names:
                target = f"{home}.{alias.name}"
                yield Import(alias.asname or alias.name, target, target if target in names else home)


def _registered(tree: ast.AST) -> Iterator[str]:
    """Names of modules ("module" or "module:attribute") in calls of `REGISTRATIONS`."""
    for node in ast.walk(tree):
        if isinstance(node, ast.Call):
            function = (
                node.func.attr if isinstance(node.func, ast.Attribute) else getattr(node.func, "id", "")
            )
            if function in REGISTRATIONS:
                for argument in node.args:
                    if isinstance(argument, ast.Constant) and isinstance(argument.value, str):
                        yield argument.value.partition(":")[0]


@cache
def sources() -> dict[str, str]:
    """Text of each file of the two packages by its path."""
    paths = [path for package in ("domainbed", "domainbed_gs") for path in (ROOT / package).rglob("*.py")]
    return {path.relative_to(ROOT).as_posix(): path.read_text(encoding="utf-8") for path in sorted(paths)}


def read(files: dict[str, str]) -> dict[str, Module]:
    """The modules by their names."""
    names = frozenset(map(module_name, files))
    modules = (_module(path, source, names) for path, source in files.items())
    return {module.name: module for module in modules}


@cache
def _module(path: str, source: str, names: frozenset[str]) -> Module:
    return Module(path, source, names)


def room(name: str) -> str:
    """The room in which a module lies; a package's own `__init__` lies in the room or face of its name."""
    return ".".join(name.split(".")[:2])


def unknown_rooms(modules: dict[str, Module]) -> list[str]:
    return sorted({room(name) for name in modules} - {*RANKS, *FACES})


def upward(modules: dict[str, Module]) -> list[str]:
    """Imports of rooms above, and of faces."""
    faults = []
    for module in modules.values():
        own = room(module.name)
        if own in FACES:
            continue
        for target in sorted({found.module for found in module.imports} | module.registered):
            if room(target) in FACES or RANKS.get(room(target), TOP) > RANKS.get(own, TOP):
                faults.append(f"{module.path} imports {target}")
    return faults


def circle(modules: dict[str, Module]) -> list[str]:
    """Modules that import each other in a circle, if any do. What a registry names is imported later."""
    graph = {name: {found.module for found in module.imports} for name, module in modules.items()}
    try:
        graphlib.TopologicalSorter(graph).prepare()
    except graphlib.CycleError as error:
        return error.args[1]
    return []


def is_private(name: str) -> bool:
    return name.startswith("_") and not name.endswith("__")


def private_attributes(tree: ast.AST) -> Iterator[ast.Attribute]:
    """Every access to an underscored attribute."""
    for node in ast.walk(tree):
        if isinstance(node, ast.Attribute) and is_private(node.attr):
            yield node


def on_self(node: ast.Attribute) -> bool:
    """Whether it is `self._name`, `cls._name` or `super()._name`."""
    owner = node.value.func if isinstance(node.value, ast.Call) else node.value
    return isinstance(owner, ast.Name) and owner.id in ("self", "cls", "super")


def private_members(cls: ast.ClassDef) -> set[str]:
    """Underscored methods, class attributes and attributes of `self` that a class defines or uses."""
    defined = {node.name for node in cls.body if isinstance(node, ast.FunctionDef)}
    for node in cls.body:
        targets = node.targets if isinstance(node, ast.Assign) else [getattr(node, "target", None)]
        defined |= {target.id for target in targets if isinstance(target, ast.Name)}
    return {name for name in defined if is_private(name)} | {
        node.attr for node in private_attributes(cls) if on_self(node)
    }


def ancestors(name: str, modules: dict[str, Module]) -> set[str]:
    """Full names of our classes from which the class `name` inherits."""
    home, _, own = name.rpartition(".")
    if home not in modules or own not in modules[home].classes:
        return set()
    bases = {modules[home].resolve(base) for base in modules[home].classes[own].bases} - {None}
    return bases.union(*(ancestors(base, modules) for base in bases))


def touched(modules: dict[str, Module]) -> list[str]:
    """Underscored names of `domainbed` that `domainbed_gs` imports, reads, sets or overrides."""

    def foreign(target: str | None) -> bool:
        return target is not None and target.startswith("domainbed.")

    members = {
        f"{module.name}.{name}": found
        for module in modules.values()
        for name, found in module.members.items()
    }
    theirs = set[str]().union(*(found for owner, found in members.items() if foreign(owner)))
    faults = []
    for module in modules.values():
        if not module.name.startswith("domainbed_gs"):
            continue
        names = {
            found.target
            for found in module.imports
            if foreign(found.target) and any(map(is_private, found.target.split(".")))
        }
        ours = set[str]().union(*module.members.values())
        for node in module.private:
            target = module.resolve(node)
            # The type of another object than `self` is unknown: the name decides.
            unknown = target is None and not on_self(node) and node.attr in theirs - ours
            if foreign(target) or unknown:
                names.add(target or f"?.{node.attr}")
        for name in module.classes:
            own = f"{module.name}.{name}"
            for ancestor in filter(foreign, ancestors(own, modules)):
                names |= {f"{ancestor}.{member}" for member in members[own] & members.get(ancestor, set())}
        faults += [f"{module.path} touches {name}" for name in sorted(names)]
    return faults


def test_every_room_stands_on_a_floor():
    assert unknown_rooms(read(sources())) == []
    rooms = {room(name) for name in read(sources())}
    assert set(RANKS) <= rooms


def test_contributing_has_the_same_table():
    text = (ROOT / "CONTRIBUTING.md").read_text(encoding="utf-8")
    rows = re.findall(r"^\| (\w+) \| ((?:`[\w.]+` ?)+)\|", text, re.MULTILINE)
    floors = [f"{floor} {rooms}".replace("`", "").split() for floor, rooms in rows]
    assert floors == [line.split() for line in FLOORS.strip().splitlines()]


def test_no_import_runs_up():
    assert upward(read(sources())) == []


def test_modules_do_not_import_each_other_in_a_circle():
    assert circle(read(sources())) == []


def test_the_plugin_touches_public_names_only():
    assert touched(read(sources())) == []


def test_tests_and_benchmarks_import_modules_where_they_are_defined():
    names = frozenset(map(module_name, sources()))
    for path in [*(ROOT / "tests").rglob("*.py"), *(ROOT / "benchmarks").rglob("*.py")]:
        if path.parent != ROOT / "tests/lib":
            found = _imports(ast.parse(path.read_text(encoding="utf-8")), "", names)
            assert "domainbed.lib" not in {room(each.module) for each in found}, path


def changed(path: str, addition: str) -> dict[str, Module]:
    """All modules, with lines added at the end of one file."""
    return read(sources() | {path: f"{sources().get(path, '')}\n{addition}\n"})


@pytest.mark.parametrize(
    ("path", "addition", "target"),
    [
        ("domainbed/seeds.py", "from domainbed.records.query import Q", "domainbed.records.query"),
        ("domainbed/seeds.py", "from domainbed.training import run", "domainbed.training.run"),
        ("domainbed/seeds.py", "def lazy():\n    import domainbed.scripts.list", "domainbed.scripts.list"),
        ("domainbed/training/run.py", "from ..sweep import job", "domainbed.sweep.job"),
        ("domainbed/training/run.py", "import_module('domainbed.sweep.job')", "domainbed.sweep.job"),
        (
            "domainbed/networks/registry.py",
            "R.add_lazy('a', 'domainbed_gs.alexnet:A')",
            "domainbed_gs.alexnet",
        ),
        ("domainbed/results/report.py", "from domainbed_gs import selection", "domainbed_gs.selection"),
        ("domainbed_gs/splits.py", "from domainbed_gs.report import paired", "domainbed_gs.report.paired"),
        ("domainbed/sweep/job.py", "from domainbed.lib.misc import seed_hash", "domainbed.lib.misc"),
        ("domainbed_gs/splits.py", "from domainbed.lib import misc", "domainbed.lib.misc"),
        ("domainbed_gs/splits.py", "from domainbed import train", "domainbed"),
    ],
)
def test_an_import_that_runs_up_is_found(path, addition, target):
    assert upward(changed(path, addition)) == [f"{path} imports {target}"]


def test_a_new_room_is_found():
    assert unknown_rooms(changed("domainbed/utils.py", "")) == ["domainbed.utils"]


def test_a_circle_within_a_room_is_found():
    modules = changed(
        "domainbed/records/query.py", "def lazy():\n    from domainbed.records import sweep_records"
    )
    assert {"domainbed.records.query", "domainbed.records.sweep_records"} <= set(circle(modules))


@pytest.mark.parametrize(
    ("addition", "name"),
    [
        ("from domainbed.plugins import _call", "domainbed.plugins._call"),
        ("from domainbed import plugins\nplugins._call('a', 'b')", "domainbed.plugins._call"),
        ("import domainbed.plugins\ndomainbed.plugins._status = None", "domainbed.plugins._status"),
        ("from domainbed.registry import Registry\nRegistry('x')._load()", "?._load"),
        ("def of(registry):\n    return registry._lazy", "?._lazy"),
        (
            "from domainbed import registry\nclass R(registry.Registry):\n    def _load(self): ...",
            "domainbed.registry.Registry._load",
        ),
        (
            "from domainbed.registry import Registry\nclass R(Registry): ...\n"
            "class S(R):\n    def names(self):\n        return self._names",
            "domainbed.registry.Registry._names",
        ),
        (
            "from domainbed.registry import Registry\nclass R(Registry):\n    _first = ()",
            "domainbed.registry.Registry._first",
        ),
    ],
)
def test_a_private_name_that_is_touched_is_found(addition, name):
    path = "domainbed_gs/alexnet.py"
    assert touched(changed(path, addition)) == [f"{path} touches {name}"]

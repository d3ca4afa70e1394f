"""Hashes of the code of plugins that a run uses.

A run resumes with the code that it began with. The version of this project is recorded, and the code of a
plugin's classes is hashed: the algorithm, the dataset and the modules of the network, with those of their
bases that come from plugins, and the functions, classes and constants of the same file that they name.
Docstrings, comments and layout do not matter.
"""

from __future__ import annotations

import ast
import hashlib
import inspect
import sys
from collections.abc import Iterator, Mapping
from types import ModuleType
from typing import TYPE_CHECKING

from domainbed.plugins import is_of_plugin

if TYPE_CHECKING:
    from torch import nn

    from domainbed.datasets.base import MultipleDomainDataset

Definition = ast.FunctionDef | ast.AsyncFunctionDef | ast.ClassDef

_WITHOUT_MEANING = ("type_comment", "kind", "ctx", "type_ignores")


def hashes(algorithm: nn.Module, dataset: MultipleDomainDataset) -> dict[str, str]:
    """The first 16 hexadecimal digits of a SHA-256 over each plugin class, by "module.Class".

    A class whose code cannot be read, such as one typed into an interpreter, has the hash "".
    """
    used = [*map(type, algorithm.modules()), type(dataset)]
    classes = {base for each in used for base in each.__mro__ if is_of_plugin(base)}
    return {f"{each.__module__}.{each.__qualname__}": code_hash(each) for each in sorted(classes, key=str)}


def differences(before: Mapping[str, str], now: Mapping[str, str]) -> list[str]:
    """The classes whose code differs, or that only one of the two has."""
    return [name for name in sorted(before.keys() | now.keys()) if before.get(name) != now.get(name)]


def code_hash(cls: type) -> str:
    """The hash of one class and of what it names in its file; "" if its code cannot be read."""
    module = sys.modules.get(cls.__module__)
    tree = None if module is None else _tree(module)
    own = None if tree is None else _definition(tree, cls.__qualname__)
    if tree is None or own is None:
        return ""
    found = hashlib.sha256()
    for node in (own, *_named_by(own, tree)):
        found.update(_text(node).encode("utf-8", "surrogatepass"))
    return found.hexdigest()[:16]


def _tree(module: ModuleType) -> ast.Module | None:
    try:
        return ast.parse(inspect.getsource(module))
    except (OSError, TypeError, SyntaxError):
        return None


def _definition(tree: ast.Module, qualified_name: str) -> ast.ClassDef | None:
    """The class of this name, the last one if there are several, as for Python."""
    scope: ast.AST = tree
    for name in qualified_name.split("."):
        if name == "<locals>":
            continue
        inside = [node for node in ast.walk(scope) if isinstance(node, Definition) and node.name == name]
        if not inside:
            return None
        scope = inside[-1]
    return scope if isinstance(scope, ast.ClassDef) else None


def _named_by(own: ast.ClassDef, tree: ast.Module) -> Iterator[ast.stmt]:
    """The statements of the file that define what `own` names, directly or through others, in their order."""
    defined = {name: node for node in tree.body for name in _names_defined(node)}
    needed: set[ast.stmt] = set()
    left: list[ast.AST] = [own]
    while left:
        for node in ast.walk(left.pop()):
            statement = defined.get(node.id) if isinstance(node, ast.Name) else None
            if statement is not None and statement is not own and statement not in needed:
                needed.add(statement)
                left.append(statement)
    return (node for node in tree.body if node in needed)


def _names_defined(node: ast.stmt) -> list[str]:
    """Names that a statement of a file defines by `def`, `class` or an assignment."""
    if isinstance(node, Definition):
        return [node.name]
    if isinstance(node, ast.Assign | ast.AnnAssign | ast.AugAssign):
        targets = node.targets if isinstance(node, ast.Assign) else [node.target]
        return [name.id for target in targets for name in ast.walk(target) if isinstance(name, ast.Name)]
    return []


def _text(node: object) -> str:
    """A syntax tree as text, without docstrings and positions; equal in all versions of Python."""
    if isinstance(node, list):
        return f"[{','.join(map(_text, node))}]"
    if not isinstance(node, ast.AST):
        return repr(node)
    # Later versions of Python add fields, which are empty for code that earlier ones can read.
    fields = [
        f"{name}={_text(value)}"
        for name, value in ast.iter_fields(node)
        if name not in _WITHOUT_MEANING and value is not None and value != []
        for value in [_without_docstring(node, name, value)]
    ]
    return f"{type(node).__name__}({','.join(fields)})"


def _without_docstring(node: ast.AST, field: str, value: object) -> object:
    if field == "body" and isinstance(node, Definition) and ast.get_docstring(node, clean=False) is not None:
        return value[1:] if isinstance(value, list) else value
    return value

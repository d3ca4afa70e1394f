"""Build the API reference from the docstrings, as HTML, and check it.

    python docs/api_reference.py FOLDER [PACKAGE ...]

Exits with status 1 if a public module, class, function or field has no description, if a docstring names
something of the packages that does not exist, or if a link of a page leads nowhere.
"""

from __future__ import annotations

import dataclasses
import importlib
import inspect
import pkgutil
import re
import sys
import warnings
from collections.abc import Iterator, Mapping, Sequence
from html.parser import HTMLParser
from pathlib import Path
from urllib.parse import unquote

import pdoc.doc
import pdoc.render

PACKAGES = ("domainbed", "domainbed_gs")
UPSTREAM_HOOKS = ("domainbed.facebook",)
"""Modules that docstrings name and only forks have."""

Modules = Mapping[str, pdoc.doc.Module]


def main(argv: Sequence[str]) -> int:
    """Build and check the pages; returns the exit status."""
    folder, *packages = argv
    warnings.simplefilter("ignore")  # annotations whose names only type checkers import stay as they are
    modules = load(packages or PACKAGES)
    build(modules, Path(folder))
    problems = [*undocumented(modules), *unknown_names(modules), *broken_links(Path(folder))]
    print(*problems, f"{len(modules)} modules, {len(problems)} problems: {folder}/index.html", sep="\n")
    return 1 if problems else 0


def load(packages: Sequence[str]) -> dict[str, pdoc.doc.Module]:
    """The public modules of `packages` by name."""
    names = []
    for package in map(importlib.import_module, packages):
        found = [each.name for each in pkgutil.walk_packages(package.__path__, f"{package.__name__}.")]
        names += [package.__name__, *(name for name in found if not is_private(name))]
        if hasattr(package, "__all__"):
            # A page shows what is in `__all__`, and of that only what has been imported.
            for name in package.__all__:
                getattr(package, name)
            inside = [each.name for each in pkgutil.iter_modules(package.__path__)]
            package.__all__ = [*package.__all__, *(name for name in inside if name not in package.__all__)]
    modules = {name: pdoc.doc.Module.from_name(name) for name in names}
    for module in modules.values():
        for each in members(module):
            describe_flags(each)
    return modules


def is_private(name: str) -> bool:
    """Whether a dotted name has an underscored part."""
    return any(part.startswith("_") for part in name.split("."))


def members(module: pdoc.doc.Namespace) -> Iterator[pdoc.doc.Doc]:
    """The module or class itself, and the public things that it defines, also within its classes."""
    yield module
    own = module.own_members if isinstance(module, pdoc.doc.Class) else module.members.values()
    for member in own:
        if isinstance(member, pdoc.doc.Module) or is_private(member.qualname):
            continue
        if isinstance(member, pdoc.doc.Class):
            yield from members(member)
        else:
            yield member


def describe_flags(thing: pdoc.doc.Doc) -> None:
    """Give the fields of a class that declares flags or settings their helps as descriptions."""
    if isinstance(thing, pdoc.doc.Class) and dataclasses.is_dataclass(thing.obj):
        for field in dataclasses.fields(thing.obj):
            if "help" in field.metadata and field.name in thing.members:
                thing.members[field.name].docstring = field.metadata["help"]


def build(modules: Modules, folder: Path) -> None:
    """Write a page for each module, the index and the index of the search."""
    pdoc.render.configure(docformat="google", show_source=False)
    for name, module in modules.items():
        page = folder / f"{name.replace('.', '/')}.html"
        page.parent.mkdir(parents=True, exist_ok=True)
        page.write_text(pdoc.render.html_module(module, modules), encoding="utf-8")
    (folder / "index.html").write_text(pdoc.render.html_index(modules), encoding="utf-8")
    (folder / "search.js").write_text(pdoc.render.search_index(modules), encoding="utf-8")


def undocumented(modules: Modules) -> Iterator[str]:
    """Public modules, classes, functions and fields of dataclasses without a description."""
    for module in modules.values():
        for each in members(module):
            is_value = isinstance(each, pdoc.doc.Variable) or getattr(each.obj, "__name__", "") == "<lambda>"
            if is_value:
                continue
            if not each.docstring.strip():
                yield f"{each.fullname} has no docstring"
            elif isinstance(each, pdoc.doc.Class):
                yield from (f"{each.fullname}.{name} is not described" for name in undescribed(each))


def undescribed(owner: pdoc.doc.Class) -> Iterator[str]:
    """Fields of a dataclass or named tuple without a docstring or an entry in that of their class."""
    if dataclasses.is_dataclass(owner.obj) or hasattr(owner.obj, "_fields"):
        for name in inspect.get_annotations(owner.obj):
            entry = rf"^\s*(\w+, )*{name}(, \w+)*:|`{name}`"  # in a list of attributes, or in a sentence
            described = owner.members[name].docstring if name in owner.members else name
            if described.startswith("Alias for field number"):  # what Python writes for named tuples
                described = ""
            if not (is_private(name) or described or re.search(entry, owner.docstring, re.MULTILINE)):
                yield name


def unknown_names(modules: Modules) -> Iterator[str]:
    """Dotted names of these packages in docstrings that stand for nothing."""
    packages = "|".join({name.partition(".")[0] for name in modules})
    for module in modules.values():
        for each in members(module):
            for name in re.findall(rf"`((?:{packages})(?:\.\w+)+)(?:\(\))?`", each.docstring):
                if name not in UPSTREAM_HOOKS and not exists(name):
                    yield f"{each.fullname} names {name}, which does not exist"


def exists(name: str) -> bool:
    """Whether a dotted name is a module, or something in one."""
    parts = name.split(".")
    for length in range(len(parts), 0, -1):
        try:
            found: object = importlib.import_module(".".join(parts[:length]))
        except ModuleNotFoundError:
            continue
        for part in parts[length:]:
            if not hasattr(found, part):
                return part in getattr(found, "__annotations__", {})
            found = getattr(found, part)
        return True
    return False


class Page(HTMLParser):
    """The links and the anchors of a page.

    Attributes:
        links: targets of its links.
        anchors: the identifiers to which links can lead.
    """

    def __init__(self, text: str) -> None:
        super().__init__()
        self.links: set[str] = set()
        self.anchors: set[str] = {""}
        self.feed(text)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        for name, value in attrs:
            if name == "id" and value:
                self.anchors.add(value)
            elif tag == "a" and name == "href" and value:
                self.links.add(value)


def broken_links(folder: Path) -> Iterator[str]:
    """Links of the pages in `folder` to files or places that do not exist; other sites are not visited."""
    texts = {path.resolve(): path.read_text(encoding="utf-8") for path in folder.rglob("*.html")}
    pages = {path: Page(text) for path, text in texts.items()}
    for path, page in pages.items():
        for link in sorted(page.links):
            if link.startswith(("https://", "http://")):
                continue
            file, _, anchor = unquote(link).partition("#")
            target = (path.parent / file).resolve() if file else path
            if target not in pages or anchor not in pages[target].anchors:
                yield f"{path.relative_to(folder.resolve())} has a link to {link}, which does not exist"


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))

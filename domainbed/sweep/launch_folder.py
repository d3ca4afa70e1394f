"""The folder in which a sweep was launched: relative paths in the arguments of its runs start there.

Arguments, hashes and records keep paths as they were typed. sweep.json has the folder, so that a worker or a
later launch that starts elsewhere opens the same files.
"""

from __future__ import annotations

import argparse
import contextlib
import os
import sys
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any

from domainbed import hparams_registry
from domainbed.errors import UsageError
from domainbed.hparams import Declaration, parse_overrides, resolve
from domainbed.sweep.manifest import Manifest, manifest_of, read_manifest
from domainbed.training.run_hparams import optional_hparams
from domainbed.training.splits import parse_scheme


@contextlib.contextmanager
def for_work(sweep_dir: Path) -> Iterator[Path]:
    """Work in the launch folder of the sweep in `sweep_dir`, for those who run what is left of it.

    Yields: `sweep_dir`, as seen from there.

    Raises: UsageError if there is no sweep, or paths of its runs start in a folder that is unknown or gone.
    """
    manifest = manifest_of(sweep_dir)
    folder = _existing_folder(manifest)
    if folder is None:
        opened = _opened(manifest.jobs.values())
        if manifest.folder is None:
            _check_guess(sweep_dir, opened)
        elif opened:
            raise UsageError(
                f"{sweep_dir} was launched in {manifest.folder}, which does not exist here, and "
                f"{_named(opened)} starts there; launch the sweep again, from the folder that has it now"
            )
    seen = _seen_from(folder, sweep_dir)
    with _entered(folder):
        yield seen


@contextlib.contextmanager
def for_launch(args: argparse.Namespace) -> Iterator[None]:
    """Work in the launch folder of the sweep in `args.output_dir`, if it is launched again.

    Changes `args.output_dir` to the directory as seen from there.

    Raises: UsageError if a path that is given exists here, too, and is another file or folder.
    """
    sweep_dir, here = Path(args.output_dir), Path.cwd()
    folder = _existing_folder(read_manifest(sweep_dir))
    args.output_dir = str(_seen_from(folder, sweep_dir))
    with _entered(folder):
        if folder is not None and not folder.samefile(here):
            _check_same_files(sweep_dir, args, here, folder)
        yield


@contextlib.contextmanager
def for_reading(sweep_dir: Path) -> Iterator[None]:
    """Work in the launch folder of the sweep in `sweep_dir`, if it is known, to open the data of its runs."""
    with _entered(_existing_folder(read_manifest(sweep_dir))):
        yield


def check_launched_here(sweep_dir: Path, jobs: Iterable[Mapping[str, Any]]) -> None:
    """Check that relative paths in `jobs`, arguments of `train`, start where those of the sweep do.

    Raises: UsageError.
    """
    folder = _existing_folder(read_manifest(sweep_dir))
    if folder is not None and not _is_here(folder) and (opened := _opened(jobs)):
        raise UsageError(
            f"{sweep_dir} was launched in {folder}, where its paths start; launch it from there, or give "
            f"the absolute path of {_named(opened)}"
        )


def folder_is_gone(sweep_dir: Path) -> bool:
    """Whether the sweep in `sweep_dir` was launched in a folder that does not exist here."""
    manifest = read_manifest(sweep_dir)
    return manifest is not None and manifest.folder is not None and not manifest.folder.is_dir()


def _existing_folder(manifest: Manifest | None) -> Path | None:
    """The launch folder of an earlier launch. If it is gone, the next launch sets another."""
    folder = manifest.folder if manifest else None
    return folder if folder is not None and folder.is_dir() else None


def _check_same_files(sweep_dir: Path, args: argparse.Namespace, here: Path, folder: Path) -> None:
    """Check that no path in `args` leads from `here` to something, and from `folder` to something else."""
    opened = _opened([{**vars(args), "dataset": name} for name in args.datasets or [""]])
    for option, path in opened.items():
        one, other = here / path, folder / path
        if one.exists() and not (other.exists() and one.samefile(other)):
            raise UsageError(
                f"{option} {path} is {one} here, but {sweep_dir} was launched in {folder}, where its paths "
                "start; launch it from there, or give the absolute path"
            )
    if opened:
        print(f"Relative paths start in {folder}, where this sweep was launched first.")


def _check_guess(sweep_dir: Path, opened: Mapping[str, str]) -> None:
    """Check that the paths of an older sweep, which does not say where they start, exist from here."""
    for option, path in opened.items():
        if not Path(path).exists():
            raise UsageError(
                f"{option} {path} does not exist here, and {sweep_dir}/sweep.json is of a version that did "
                "not record where the sweep was launched; change to that folder, and try again"
            )


def _opened(jobs: Iterable[Mapping[str, Any]]) -> dict[str, str]:
    """The relative paths that runs with these arguments read: flag -> path, the first of each flag."""
    from domainbed.datasets import REGISTRY

    found: dict[str, str] = {}
    names = ("dataset", "data_dir", "splits", "hparams", "algorithm")
    for args in {str([job.get(name) for name in names]): job for job in jobs}.values():
        paths = {"--data_dir": args.get("data_dir"), **_files_of_hparams(args)}
        scheme, options = parse_scheme(args.get("splits") or "")
        if scheme == "file" and "{" not in str(options):  # placeholders stand for the run's values
            paths["--splits"] = ":".join(options)
        if args["dataset"] not in REGISTRY:
            paths["--dataset"] = args["dataset"]
        for option, path in paths.items():
            if path and not Path(path).is_absolute():
                found.setdefault(option, path)
    return found


def _files_of_hparams(args: Mapping[str, Any]) -> dict[str, str]:
    """The files that hyper-parameters in these arguments of `train` or flags of `sweep` name."""
    given = parse_overrides(args.get("hparams"))
    declared: dict[str, Declaration] = {**optional_hparams()}
    for algorithm in args.get("algorithms") or [args.get("algorithm", "")]:
        declared |= {**hparams_registry.table(algorithm), **hparams_registry.switches(algorithm)}
    return {
        name: str(value)
        for each in (given, *(value for value in given.values() if isinstance(value, dict)))
        for name, value in each.items()
        if name in declared
        and resolve(declared[name], "").is_path(value)
        and not str(value).startswith("~")  # expanded where it is read
    }


def _named(opened: Mapping[str, str]) -> str:
    return ", ".join(f"{option} {path}" for option, path in opened.items())


def _is_here(folder: Path) -> bool:
    return folder.samefile(Path.cwd())


def _seen_from(folder: Path | None, sweep_dir: Path) -> Path:
    """`sweep_dir` itself where nothing changes, else its absolute path."""
    return sweep_dir if folder is None or _is_here(folder) else sweep_dir.absolute()


@contextlib.contextmanager
def _entered(folder: Path | None) -> Iterator[None]:
    """Work in `folder`, and find modules of plugins there. None changes nothing."""
    if folder is None or _is_here(folder):
        yield
        return
    here, path, variable = str(Path.cwd()), list(sys.path), os.environ.get("PYTHONPATH")
    if path[:1] in ([""], [here]):  # `python -m` looks for modules in the current folder
        sys.path[:1] = [str(folder), here]
    # Processes that are started there find modules where this one does.
    entries = [os.path.abspath(entry) for entry in (variable or "").split(os.pathsep) if entry]  # noqa: PTH100
    os.environ["PYTHONPATH"] = os.pathsep.join([*entries, *([here] if sys.path != path else [])])
    try:
        with contextlib.chdir(folder):
            yield
    finally:
        sys.path[:] = path
        if variable is None:
            del os.environ["PYTHONPATH"]
        else:
            os.environ["PYTHONPATH"] = variable

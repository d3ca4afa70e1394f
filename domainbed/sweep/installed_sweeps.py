"""Sweep files that come with the package, which `--config` finds by name."""

from __future__ import annotations

from pathlib import Path

from domainbed.errors import misspelt

_PACKAGE = Path(__file__).parent.parent


def sweep_files() -> dict[str, Path]:
    """Name and path of each sweep file that comes with the package: of an installed one, or of a checkout."""
    for folder in (_PACKAGE / "sweeps", _PACKAGE.parent / "sweeps"):
        if folder.is_dir():
            return {path.stem: path for path in sorted(folder.glob("*.toml"))}
    return {}


def find_sweep_file(given: Path) -> Path:
    """The sweep file that `--config` means: a path, or the name of one that comes with the package.

    Raises: UsageError for a name that is neither, with the nearest names.
    """
    if given.exists() or given.suffix or len(given.parts) > 1:
        return given  # whoever opens it says what is wrong with it
    found = sweep_files()
    if given.name in found:
        return found[given.name]
    raise misspelt(
        f"there is no sweep file {given}, and none of this name comes with the package", given.name, found
    )

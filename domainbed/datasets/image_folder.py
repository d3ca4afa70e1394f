"""Datasets in folders root/environment/class/image: upstream's base class, and any folder without code."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from pathlib import Path
from typing import Any, ClassVar

from domainbed.datasets.base import MultipleDomainDataset
from domainbed.datasets.folder_layout import environment_names, read_layout
from domainbed.datasets.image_files import ImageFiles
from domainbed.datasets.image_transforms import augmenting_transform, input_shape, plain_transform
from domainbed.errors import UsageError


class MultipleEnvironmentImageFolder(MultipleDomainDataset):
    """Environments are the sub-folders of a folder, classes the folders in each of them.

    Inputs (3, S, S) float32, S = `input_size` (224), normalised as for ImageNet. Source environments are
    augmented as a whole, for evaluation too, as upstream does it; `plain()` of an environment has the
    same samples without augmentation.

    Args:
        root: folder of the environments' folders.
        test_envs: indices of the environments that are never augmented.
        augment: whether the others are.
        hparams: for `input_size`, `stored_size`, `reencode`.

    Attributes:
        FOLDERS: display name -> name of the folder, for each environment in order. Where it is empty,
            environments are all sub-folders, sorted by name.
        dir: the folder.

    Raises: UsageError where the folder is not what it should be.
    """

    FOLDERS: ClassVar[Mapping[str, str]] = {}

    dir: str

    def __init__(
        self, root: str | Path, test_envs: Collection[int], augment: bool, hparams: dict[str, Any]
    ) -> None:
        self.dir = str(root)
        layout = read_layout(Path(root), tuple(self.FOLDERS.values()))
        if not self.ENVIRONMENTS:
            vars(self)["ENVIRONMENTS"] = layout.environments  # a fork's class that does not name them
        elif len(self.ENVIRONMENTS) != len(layout.environments):
            raise UsageError(
                f"{type(self).__name__} has {len(self.ENVIRONMENTS)} environments "
                f"({', '.join(self.ENVIRONMENTS)}), but {root} has {len(layout.environments)} folders "
                f"({', '.join(layout.environments)})"
            )
        self.input_shape = input_shape(hparams)
        self.class_names = layout.classes
        self.num_classes = len(layout.classes)
        plain, augmenting = plain_transform(hparams), augmenting_transform(hparams)
        self.datasets = [
            ImageFiles(layout.samples(name), augmenting if augment and i not in test_envs else plain, plain)
            for i, name in enumerate(layout.environments)
        ]


class FolderDataset(MultipleEnvironmentImageFolder):
    """Any folder root/environment/class/image; `folder_dataset` makes the class for one."""

    CHECKPOINT_FREQ = 300
    NEEDS_DATA = False

    PATH: ClassVar[Path]

    def __init__(self, root: str | None, test_envs: Sequence[int], hparams: dict[str, Any]) -> None:
        super().__init__(self.PATH, test_envs, hparams["data_augmentation"], hparams)

    @classmethod
    def missing(cls, root: str | None) -> str | None:
        """What is wrong with the folder, in one line; None if nothing. `root` plays no part."""
        try:
            layout = read_layout(cls.PATH)
            for name in layout.environments:
                layout.samples(name)
        except UsageError as error:
            return str(error)
        return None


def folder_dataset(path: Path) -> type[MultipleDomainDataset]:
    """A dataset class for the folder `path`; its environments are the sub-folders, sorted by name.

    Raises: UsageError if `path` is no folder or has no sub-folders. Anything else that is wrong with it
        is said by `missing` and by the constructor.
    """
    members = {
        "PATH": path,
        "ENVIRONMENTS": environment_names(path),
        "__doc__": f"The folder {path}.",
        "__module__": __name__,
    }
    return type(path.resolve().name, (FolderDataset,), members)

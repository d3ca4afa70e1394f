"""Spawrious: four dog breeds on backgrounds that correlate spuriously with them (Lynch et al. 2023)."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar

from domainbed.datasets import REGISTRY
from domainbed.datasets.base import MultipleDomainDataset
from domainbed.datasets.image_files import ImageFiles, Transform
from domainbed.datasets.image_transforms import (
    OPTIONS_OF_IMAGES,
    AugmentingTransform,
    PlainTransform,
    input_shape,
)
from domainbed.errors import UsageError

if TYPE_CHECKING:
    from torch import Tensor

Combinations = Mapping[tuple[str, ...], Sequence[str | tuple[str, int]]] | Sequence[str]
"""Class names -> for each group, a location or (location, maximum number of images).

Or a sequence with a location for each group, which all classes share.
"""

IMAGES_PER_CLASS = 3168
"""Number of images of one class at one location."""

_CLASS_ORDER = ("bulldog", "dachshund", "labrador", "corgi")


class CustomImageFolder(ImageFiles):
    """The images of one folder, sorted by name, with the same label for all.

    Args:
        folder_path: the folder.
        class_index: the label, returned as an int64 scalar tensor.
        limit: maximum number of images.
        transform: function of an image; None leaves images unchanged.
    """

    def __init__(
        self,
        folder_path: str | Path,
        class_index: int,
        limit: int | None = None,
        transform: Transform | None = None,
    ) -> None:
        try:
            names = sorted(path.name for path in Path(folder_path).iterdir())
        except OSError as error:
            raise UsageError(f"folder {folder_path} cannot be read: {error.strerror}") from None
        names = [n for n in names if n.endswith((".png", ".jpg", ".jpeg")) and not n.startswith(".")]
        if not names:
            raise UsageError(f"folder {folder_path} has no images (.png, .jpg, .jpeg)")
        super().__init__([(str(Path(folder_path) / name), class_index) for name in names[:limit]], transform)

    def __getitem__(self, index: int) -> tuple[Any, Tensor]:
        import torch

        image, label = super().__getitem__(index)
        return image, torch.tensor(label, dtype=torch.int64)


class SpawriousBenchmark(MultipleDomainDataset):
    """A test environment and two training environments, read from folders `split/location/class`.

    Images are not cropped, and those of the test environment are not augmented.

    Args:
        train_combinations: a training environment for each group; see `Combinations`.
        test_combinations: groups that together are the environment "Test".
        root_dir: folder that contains the folders `0` and `1`.
        augment: whether to augment the training environments.
        type1: read group g from folder g, instead of all groups from folder 0.
        hparams: hyper-parameters; `input_size`, `stored_size`, `reencode` and `augmentation` are used.
    """

    READS = OPTIONS_OF_IMAGES
    ENVIRONMENTS = ("Test", "SC_group_1", "SC_group_2")

    input_shape = (3, 224, 224)
    num_classes = 4
    class_list: ClassVar[Sequence[str]] = ("bulldog", "corgi", "dachshund", "labrador")
    class_names = class_list

    def __init__(
        self,
        train_combinations: Combinations,
        test_combinations: Combinations,
        root_dir: str | None,
        augment: bool = True,
        type1: bool = False,
        hparams: dict[str, Any] | None = None,
    ) -> None:
        root, hparams = self.require(root_dir), hparams or {}
        self.input_shape = input_shape(hparams)
        plain, augmenting = PlainTransform(hparams), AugmentingTransform(hparams, resize=True, crop=False)
        test = [sample for group in self._groups(root, test_combinations, type1) for sample in group]
        self.datasets = [ImageFiles(test, plain)] + [
            ImageFiles(group, augmenting if augment else plain, plain)
            for group in self._groups(root, train_combinations, type1)
        ]

    def _groups(self, root: Path, combinations: Combinations, type1: bool) -> list[list[tuple[str, int]]]:
        """Path and label of each image of each group."""
        if not isinstance(combinations, Mapping):
            return [
                [sample for name in self.class_list for sample in self._samples(root / "0" / location, name)]
                for location in combinations
            ]
        n_groups = len(next(iter(combinations.values())))
        groups: list[list[tuple[str, int]]] = [[] for _ in range(n_groups)]
        for classes, entries in combinations.items():
            for g, entry in enumerate(entries):
                location, limit = (entry, None) if isinstance(entry, str) else entry
                for name in classes:
                    groups[g] += self._samples(root / str(g if type1 else 0) / location, name, limit)
        return groups

    def _samples(self, place: Path, name: str, limit: int | None = None) -> Sequence[tuple[str, int]]:
        return CustomImageFolder(place / name, self.class_list.index(name), limit).samples

    @classmethod
    def missing(cls, root: str | None) -> str | None:
        """One line on which folders are missing; None if none is."""
        missing = super().missing(root)
        if missing or root is None or all((Path(root) / split).is_dir() for split in ("0", "1")):
            return missing
        return cls.with_command(f"{cls.__name__} needs Spawrious' folders 0 and 1 in {root}", root)

    @staticmethod
    def build_type1_combination(
        group: Sequence[str], test: Sequence[str], filler: str
    ) -> tuple[Combinations, Combinations]:
        """Combinations with one location per class in both groups, filled up with images from `filler`."""
        counts = (int(0.97 * IMAGES_PER_CLASS), int(0.87 * IMAGES_PER_CLASS))
        train: dict[tuple[str, ...], list[str | tuple[str, int]]] = {
            (name,): [(place, n) for n in counts] for name, place in zip(_CLASS_ORDER, group, strict=True)
        }
        train[_CLASS_ORDER] = [(filler, IMAGES_PER_CLASS - n) for n in counts]
        return train, {(name,): [place, place] for name, place in zip(_CLASS_ORDER, test, strict=True)}

    @staticmethod
    def build_type2_combination(
        group: Sequence[str], test: Sequence[str]
    ) -> tuple[Combinations, Combinations]:
        """Combinations in which two classes share two locations and swap them between the groups."""

        def swapped(places: Sequence[str]) -> list[tuple[str, str]]:
            a, b, c, d = places
            return [(a, b), (b, a), (c, d), (d, c)]

        train: Combinations = {
            (name,): [(place, IMAGES_PER_CLASS) for place in pair]
            for name, pair in zip(_CLASS_ORDER, swapped(group), strict=True)
        }
        return train, {(name,): pair for name, pair in zip(_CLASS_ORDER, swapped(test), strict=True)}


class SpawriousO2O(SpawriousBenchmark):
    """One-to-one: each class correlates with one location, and with another one in the test environment."""

    GROUP: ClassVar[Sequence[str]]
    TEST: ClassVar[Sequence[str]]
    FILLER: ClassVar[str]

    def __init__(self, root_dir: str | None, test_envs: Sequence[int], hparams: dict[str, Any]) -> None:
        train, test = self.build_type1_combination(self.GROUP, self.TEST, self.FILLER)
        super().__init__(train, test, root_dir, hparams["data_augmentation"], type1=True, hparams=hparams)


class SpawriousM2M(SpawriousBenchmark):
    """Many-to-many: two classes correlate with two locations, and with two others in the test environment."""

    GROUP: ClassVar[Sequence[str]]
    TEST: ClassVar[Sequence[str]]

    def __init__(self, root_dir: str | None, test_envs: Sequence[int], hparams: dict[str, Any]) -> None:
        train, test = self.build_type2_combination(self.GROUP, self.TEST)
        super().__init__(train, test, root_dir, hparams["data_augmentation"], hparams=hparams)


@REGISTRY.register()
class SpawriousO2O_easy(SpawriousO2O):
    """One-to-one, easy."""

    DOWNLOADABLE = True
    GROUP = ("desert", "jungle", "dirt", "snow")
    TEST = ("dirt", "snow", "desert", "jungle")
    FILLER = "beach"


@REGISTRY.register()
class SpawriousO2O_medium(SpawriousO2O):
    """One-to-one, medium."""

    DOWNLOADABLE = True
    GROUP = ("mountain", "beach", "dirt", "jungle")
    TEST = ("jungle", "dirt", "beach", "snow")
    FILLER = "desert"


@REGISTRY.register()
class SpawriousO2O_hard(SpawriousO2O):
    """One-to-one, hard."""

    DOWNLOADABLE = True
    GROUP = ("jungle", "mountain", "snow", "desert")
    TEST = ("mountain", "snow", "desert", "jungle")
    FILLER = "beach"


@REGISTRY.register()
class SpawriousM2M_easy(SpawriousM2M):
    """Many-to-many, easy."""

    DOWNLOADABLE = True
    GROUP = ("desert", "mountain", "dirt", "jungle")
    TEST = ("dirt", "jungle", "mountain", "desert")


@REGISTRY.register()
class SpawriousM2M_medium(SpawriousM2M):
    """Many-to-many, medium."""

    DOWNLOADABLE = True
    GROUP = ("beach", "snow", "mountain", "desert")
    TEST = ("desert", "mountain", "beach", "snow")


@REGISTRY.register()
class SpawriousM2M_hard(SpawriousM2M):
    """Many-to-many, hard."""

    DOWNLOADABLE = True
    GROUP = ("dirt", "jungle", "snow", "beach")
    TEST = ("snow", "beach", "dirt", "jungle")

"""WILDSCamelyon and WILDSFMoW: two datasets of the `wilds` package, one environment for each place.

`wilds` is imported only where one of them is built.
"""

from __future__ import annotations

import contextlib
import importlib
import importlib.util
import sys
import warnings
from collections.abc import Collection, Iterator, Sequence
from functools import partial
from pathlib import Path
from types import ModuleType
from typing import TYPE_CHECKING, Any, ClassVar, cast

from domainbed.datasets import REGISTRY
from domainbed.datasets.base import MultipleDomainDataset
from domainbed.datasets.image_files import ImageEnvironment, Transform, UnreadableImage, tolerate_truncated
from domainbed.datasets.image_transforms import augmenting_transform, input_shape, plain_transform
from domainbed.errors import RunError, UsageError

if TYPE_CHECKING:
    import PIL.Image


class WILDSEnvironment(ImageEnvironment):
    """The samples of a WILDS dataset whose metadata have one value in one field.

    Args:
        wilds_dataset: an object of `wilds`.
        metadata_name: name of the field, e.g. `hospital`.
        metadata_value: the value.
        transform: what is done to an image, by default nothing.
        plain_transform: the same without augmentation, by default `transform`.

    Attributes:
        name: `<field>_<value>`.
        dataset: the WILDS dataset.
        indices: rows of the samples in it, (N,) int64.
        targets: labels (N,) int64.
        transform: as given.
    """

    def __init__(
        self,
        wilds_dataset: Any,  # noqa: ANN401 - wilds has no types
        metadata_name: str,
        metadata_value: int,
        transform: Transform | None = None,
        plain_transform: Transform | None = None,
    ) -> None:
        self.name = f"{metadata_name}_{metadata_value}"
        self.dataset = wilds_dataset
        self.indices = (_column(wilds_dataset, metadata_name) == metadata_value).nonzero().view(-1)
        super().__init__(wilds_dataset.y_array[self.indices], transform, plain_transform)

    def image(self, index: int) -> PIL.Image.Image:
        from PIL import Image

        tolerate_truncated()
        row = int(self.indices[index])
        try:
            x = self.dataset.get_input(row)
        except Exception as error:  # damaged files make PIL raise a dozen unrelated classes
            raise UnreadableImage(
                f"row {row} of WILDS' {self.dataset.dataset_name} in {self.dataset.data_dir} cannot be read "
                f"({type(error).__name__}: {error}); download it again"
            ) from error
        return x if isinstance(x, Image.Image) else Image.fromarray(x)

    def paths(self) -> Sequence[str] | None:
        """As `wilds` puts them together for Camelyon17 and FMoW when an image is read."""
        rows, home = self.indices.tolist(), Path(self.dataset.data_dir)
        if hasattr(self.dataset, "full_idxs"):
            return [str(home / "images" / f"rgb_img_{self.dataset.full_idxs[row]}.png") for row in rows]
        names = getattr(self.dataset, "_input_array", None)
        return None if names is None else [str(home / names[row]) for row in rows]


class WILDSDataset(MultipleDomainDataset):
    """A WILDS dataset with one environment for each value of a metadata field, in order of the values.

    Args:
        dataset: an object of `wilds`.
        metadata_name: name of the field.
        test_envs: indices of the environments that are never augmented.
        augment: whether the others are.
        hparams: for `input_size`, `stored_size`, `reencode`.

    Attributes:
        FOLDER: folder of the data under the data directory, as `wilds` names it.

    Raises: UsageError if there are other values than `ENVIRONMENTS` names.
    """

    FOLDER: ClassVar[str] = ""

    def __init__(
        self,
        dataset: Any,  # noqa: ANN401 - wilds has no types
        metadata_name: str,
        test_envs: Collection[int],
        augment: bool,
        hparams: dict[str, Any],
    ) -> None:
        self.input_shape = input_shape(hparams)
        self.num_classes = dataset.n_classes
        values = self.metadata_values(dataset, metadata_name)
        names = tuple(f"{metadata_name}_{value}" for value in values)
        if not self.ENVIRONMENTS:
            vars(self)["ENVIRONMENTS"] = names  # a fork's class that does not name them
        elif names != tuple(self.ENVIRONMENTS):
            raise UsageError(
                f"{type(self).__name__} has the environments {', '.join(self.ENVIRONMENTS)}, but the data in "
                f"{dataset.data_dir} have {', '.join(names) or 'none'}; download them again"
            )
        plain, augmenting = plain_transform(hparams), augmenting_transform(hparams, resize=True)
        self.datasets = [
            WILDSEnvironment(
                dataset, metadata_name, value, augmenting if augment and i not in test_envs else plain, plain
            )
            for i, value in enumerate(values)
        ]

    def metadata_values(self, wilds_dataset: Any, metadata_name: str) -> list[int]:  # noqa: ANN401
        """Distinct values of a metadata field, sorted."""
        return sorted(set(_column(wilds_dataset, metadata_name).tolist()))

    @classmethod
    def missing(cls, root: str | None) -> str | None:
        """The package or the folder that is not there, in one line; None if both are."""
        if importlib.util.find_spec("wilds") is None:
            return f"{cls.__name__} needs the package wilds, which is not installed: pip install wilds"
        missing = super().missing(root)
        if missing or root is None or not cls.FOLDER:
            return missing
        release = Path(root) / cls.FOLDER / f"RELEASE_{cls.FOLDER.rpartition('_')[2]}.txt"
        if release.is_file():
            return None
        return cls.to_fetch(
            f"{cls.__name__} needs the folder {release.parent} as the package wilds downloads it, "
            f"with {release.name}",
            root,
        )

    def load(self, root: str | None, module: str, name: str) -> Any:  # noqa: ANN401 - wilds has no types
        """The object of class `name` in `wilds.datasets.<module>`, built from `root`.

        Raises: UsageError if something is missing, RunError if the data's tables are damaged.
        """
        folder = self.require(root)
        try:
            with _without_version_checks():
                home = importlib.import_module(f"wilds.datasets.{module}")
        except ImportError as error:
            raise UsageError(
                f"{type(self).__name__} needs the package wilds, which cannot be imported ({error})"
            ) from error
        try:
            with warnings.catch_warnings(), _mixed_timestamps(home):
                # pandas 3 hands out read-only arrays; nothing writes to the tensors made of them.
                warnings.filterwarnings("ignore", message="The given NumPy array is not writable")
                return getattr(home, name)(root_dir=str(folder))
        except (OSError, ValueError, KeyError) as error:
            raise RunError(
                f"the data in {folder / self.FOLDER} cannot be read ({type(error).__name__}: {error}); "
                "download them again"
            ) from error


@REGISTRY.register()
class WILDSCamelyon(WILDSDataset):
    """Tumour or not, in tissue from five hospitals (Camelyon17; Koh et al. 2021)."""

    ENVIRONMENTS = tuple(f"hospital_{i}" for i in range(5))
    FOLDER = "camelyon17_v1.0"

    def __init__(self, root: str | None, test_envs: Sequence[int], hparams: dict[str, Any]) -> None:
        dataset = self.load(root, "camelyon17_dataset", "Camelyon17Dataset")
        super().__init__(dataset, "hospital", test_envs, hparams["data_augmentation"], hparams)


@REGISTRY.register()
class WILDSFMoW(WILDSDataset):
    """62 uses of land in six regions, from satellites (Functional Map of the World; Koh et al. 2021)."""

    ENVIRONMENTS = tuple(f"region_{i}" for i in range(6))
    FOLDER = "fmow_v1.1"
    SAME_CLASSES = False

    def __init__(self, root: str | None, test_envs: Sequence[int], hparams: dict[str, Any]) -> None:
        dataset = self.load(root, "fmow_dataset", "FMoWDataset")
        super().__init__(dataset, "region", test_envs, hparams["data_augmentation"], hparams)


def _column(wilds_dataset: Any, metadata_name: str) -> Any:  # noqa: ANN401 - wilds has no types
    """Values (N,) int64 of a metadata field."""
    return wilds_dataset.metadata_array[:, wilds_dataset.metadata_fields.index(metadata_name)]


@contextlib.contextmanager
def _without_version_checks() -> Iterator[None]:
    """Import `wilds` as if the package `outdated` were absent.

    With it, `wilds` starts threads that ask the network for newer versions and hold the process's exit.
    """
    modules = cast("dict[str, ModuleType | None]", sys.modules)
    before = {"outdated": modules["outdated"]} if "outdated" in modules else {}
    modules["outdated"] = None
    try:
        yield
    finally:
        del modules["outdated"]
        modules.update(before)


class _Pandas:
    """pandas with another `to_datetime`."""

    def __init__(self, pandas: ModuleType) -> None:
        self._pandas = pandas
        # FMoW's timestamps come with and without fractions of a second; pandas 2 wants that said.
        self.to_datetime = partial(pandas.to_datetime, format="ISO8601", utc=True)

    def __getattr__(self, name: str) -> Any:  # noqa: ANN401 - whatever pandas has
        return getattr(self._pandas, name)


@contextlib.contextmanager
def _mixed_timestamps(module: ModuleType) -> Iterator[None]:
    """Let `module`, which calls pandas `pd`, read timestamps of mixed ISO 8601 forms meanwhile."""
    pandas = module.pd
    vars(module)["pd"] = _Pandas(pandas)
    try:
        yield
    finally:
        vars(module)["pd"] = pandas

"""WILDSCamelyon and WILDSFMoW: two datasets of the `wilds` package (Koh et al. 2021).

`wilds` is imported when one of them is built.
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
from domainbed.datasets.image_decoding import UnreadableImage, allow_truncated_images
from domainbed.datasets.image_files import ImageEnvironment, Transform
from domainbed.datasets.image_transforms import (
    OPTIONS_OF_IMAGES,
    AugmentingTransform,
    PlainTransform,
    input_shape,
)
from domainbed.datasets.reading_rules import UPSTREAM
from domainbed.errors import RunError, UsageError

if TYPE_CHECKING:
    import PIL.Image


class WILDSEnvironment(ImageEnvironment):
    """The samples of a WILDS dataset with a given value in one metadata field.

    Args:
        wilds_dataset: a dataset object of `wilds`.
        metadata_name: name of the field, e.g. `hospital`.
        metadata_value: the value.
        transform, plain_transform: see `ImageEnvironment`.

    Attributes:
        name: `<field>_<value>`.
        dataset: the WILDS dataset.
        indices: rows of the samples in it, (N,) int64.
        targets: labels (N,) int64.
        transform: see above.
    """

    rules = UPSTREAM  # the package converts images as upstream does

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

        allow_truncated_images()
        row = int(self.indices[index])
        try:
            x = self.dataset.get_input(row)
        except Exception as error:  # PIL raises many unrelated classes for damaged files
            raise UnreadableImage(
                f"row {row} of WILDS' {self.dataset.dataset_name} in {self.dataset.data_dir} cannot be read "
                f"({type(error).__name__}: {error}); download it again"
            ) from error
        return x if isinstance(x, Image.Image) else Image.fromarray(x)

    def paths(self) -> Sequence[str] | None:
        """Path of each image's file, composed as in `wilds`; None for datasets but Camelyon17 and FMoW."""
        rows, home = self.indices.tolist(), Path(self.dataset.data_dir)
        if hasattr(self.dataset, "full_idxs"):
            return [str(home / "images" / f"rgb_img_{self.dataset.full_idxs[row]}.png") for row in rows]
        names = getattr(self.dataset, "_input_array", None)
        return None if names is None else [str(home / names[row]) for row in rows]


class WILDSDataset(MultipleDomainDataset):
    """Base class of WILDS datasets with one environment per value of a metadata field, sorted by value.

    Args:
        dataset: a dataset object of `wilds`.
        metadata_name: name of the field.
        test_envs: indices of the environments that are not augmented.
        augment: whether to augment the other environments.
        hparams: hyper-parameters; `input_size`, `stored_size`, `reencode` and `augmentation` are used.

    Attributes:
        FOLDER: folder of the data in the data directory, as named by `wilds`.

    Raises: UsageError if the values differ from those in `ENVIRONMENTS`.
    """

    READS = OPTIONS_OF_IMAGES
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
            vars(self)["ENVIRONMENTS"] = names  # the class of a fork need not name them
        elif names != tuple(self.ENVIRONMENTS):
            raise UsageError(
                f"{type(self).__name__} has the environments {', '.join(self.ENVIRONMENTS)}, but the data in "
                f"{dataset.data_dir} has {', '.join(names) or 'none'}; download it again"
            )
        plain, augmenting = PlainTransform(hparams), AugmentingTransform(hparams, resize=True)
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
        """One line on whether the package or the folder is missing; None if neither is."""
        if importlib.util.find_spec("wilds") is None:
            return f"{cls.__name__} needs the package wilds, which is not installed; run: pip install wilds"
        missing = super().missing(root)
        if missing or root is None or not cls.FOLDER:
            return missing
        release = Path(root) / cls.FOLDER / f"RELEASE_{cls.FOLDER.rpartition('_')[2]}.txt"
        if release.is_file():
            return None
        return cls.with_command(
            f"{cls.__name__} needs the folder {release.parent} as downloaded by the package wilds, "
            f"including {release.name}",
            root,
        )

    def load(self, root: str | None, module: str, name: str) -> Any:  # noqa: ANN401 - wilds has no types
        """Build the dataset object of class `wilds.datasets.<module>.<name>` from `root`.

        Raises: UsageError if the package or the data is missing; RunError if its tables cannot be read.
        """
        folder = self.require(root)
        try:
            with _without_version_checks():
                home = importlib.import_module(f"wilds.datasets.{module}")
        except ImportError as error:
            raise UsageError(
                f"{type(self).__name__} needs the package wilds, which cannot be imported ({error}); "
                "run: pip install -U wilds"
            ) from error
        try:
            with warnings.catch_warnings(), _mixed_timestamps(home):
                # The arrays of pandas 3 are read-only; nothing writes to the tensors that share their memory.
                warnings.filterwarnings("ignore", message="The given NumPy array is not writable")
                return getattr(home, name)(root_dir=str(folder))
        except (OSError, ValueError, KeyError) as error:
            raise RunError(
                f"the data in {folder / self.FOLDER} cannot be read ({type(error).__name__}: {error}); "
                "download it again"
            ) from error


@REGISTRY.register()
class WILDSCamelyon(WILDSDataset):
    """Tumour detection in tissue from five hospitals (Camelyon17; Bandi et al. 2018)."""

    ENVIRONMENTS = tuple(f"hospital_{i}" for i in range(5))
    FOLDER = "camelyon17_v1.0"
    DOWNLOADABLE = True

    def __init__(self, root: str | None, test_envs: Sequence[int], hparams: dict[str, Any]) -> None:
        dataset = self.load(root, "camelyon17_dataset", "Camelyon17Dataset")
        super().__init__(dataset, "hospital", test_envs, hparams["data_augmentation"], hparams)


@REGISTRY.register()
class WILDSFMoW(WILDSDataset):
    """62 classes of land use in satellite images of six regions (FMoW; Christie et al. 2018)."""

    ENVIRONMENTS = tuple(f"region_{i}" for i in range(6))
    FOLDER = "fmow_v1.1"
    DOWNLOADABLE = True
    SAME_CLASSES = False

    def __init__(self, root: str | None, test_envs: Sequence[int], hparams: dict[str, Any]) -> None:
        dataset = self.load(root, "fmow_dataset", "FMoWDataset")
        super().__init__(dataset, "region", test_envs, hparams["data_augmentation"], hparams)


def _column(wilds_dataset: Any, metadata_name: str) -> Any:  # noqa: ANN401 - wilds has no types
    """Values (N,) int64 of the metadata field `metadata_name`."""
    return wilds_dataset.metadata_array[:, wilds_dataset.metadata_fields.index(metadata_name)]


@contextlib.contextmanager
def _without_version_checks() -> Iterator[None]:
    """Hide the package `outdated` while `wilds` is imported.

    With `outdated`, `wilds` starts threads that look for newer versions on the network and delay the exit of
    the process.
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
    """The module pandas with a `to_datetime` that accepts mixed ISO 8601 formats."""

    def __init__(self, pandas: ModuleType) -> None:
        self._pandas = pandas
        # FMoW has timestamps with and without fractions of a second, which pandas 2 rejects by default.
        self.to_datetime = partial(pandas.to_datetime, format="ISO8601", utc=True)

    def __getattr__(self, name: str) -> Any:  # noqa: ANN401 - whatever pandas has
        return getattr(self._pandas, name)


@contextlib.contextmanager
def _mixed_timestamps(module: ModuleType) -> Iterator[None]:
    """Let `module`, which imports pandas as `pd`, parse timestamps in mixed ISO 8601 formats."""
    pandas = module.pd
    vars(module)["pd"] = _Pandas(pandas)
    try:
        yield
    finally:
        vars(module)["pd"] = pandas

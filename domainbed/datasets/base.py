"""The contract of a dataset: environments of (input, label) pairs with the same classes in each.

No module of this package imports torch before a dataset is built: tables of results need the names of
environments, not the images.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar, Protocol

import numpy as np

from domainbed.errors import UsageError

if TYPE_CHECKING:
    from torch import Tensor
    from torch.utils.data import Dataset

    Environment = Dataset[tuple[Any, Any]]


class Batched(Protocol):
    """An environment held in memory: it gives many samples at once."""

    def batch(self, indices: np.ndarray[Any, Any]) -> tuple[Tensor, Tensor]:
        """Inputs (B, *input_shape) as float32 and labels (B,) as int64 of the samples at `indices`."""


class Drawn(Protocol):
    """An environment that makes many samples at once, perhaps with random changes."""

    in_memory: bool
    """Whether no file is read."""

    def drawn_batch(self, indices: np.ndarray[Any, Any], draws: tuple[int, ...]) -> tuple[Tensor, Tensor]:
        """As `Batched.batch`, where random numbers belong to the counters `draws`."""


class MultipleDomainDataset:
    """A list of environments, `datasets`, in the order of `ENVIRONMENTS`.

    Constructor of every concrete class: `(root, test_envs, hparams)`, called positionally: the data
    directory, indices of the target environments (they get no augmentation), the hyper-parameters.

    Attributes:
        N_STEPS: number of updates of a run by default.
        CHECKPOINT_FREQ: number of updates between evaluations by default.
        N_WORKERS: number of loader processes that upstream would use.
        ENVIRONMENTS: names of the environments, for display.
        INPUT_SHAPE: shape of an input, where it is fixed.
        SMALL_IMAGES: whether the hyper-parameters for small images apply.
        NEEDS_DATA: whether files outside the package are needed.
        SAME_CLASSES: whether every environment must have samples of every class.
        VERSION: raised where the same files come to make other data; runs over several are not mixed.
        datasets: one map-style dataset of (input, label) an environment. It has `targets`, the labels
            as a sequence of ints, or is a TensorDataset.
        input_shape: shape of an input, a tuple.
        num_classes: number of classes.
        class_names: their names in order of the labels.
        summary: what identifies the data, once `contract.build` has checked them: `counts` of the samples,
            `checksum`, `version`.
        drawn_from: hash of what the environments were drawn from, where random numbers of the run make them.
        digests: for each environment the digests of its images, once all were read (see `copies`).
    """

    N_STEPS: ClassVar[int] = 5001
    CHECKPOINT_FREQ: ClassVar[int] = 100
    N_WORKERS: ClassVar[int] = 8
    ENVIRONMENTS: ClassVar[Sequence[str]] = ()
    INPUT_SHAPE: ClassVar[tuple[int, ...] | None] = None
    SMALL_IMAGES: ClassVar[bool] = False
    NEEDS_DATA: ClassVar[bool] = True
    SAME_CLASSES: ClassVar[bool] = True
    VERSION: ClassVar[int] = 1

    datasets: Sequence[Environment]
    input_shape: tuple[int, ...]
    num_classes: int
    class_names: Sequence[str] = ()
    summary: Mapping[str, Any]
    drawn_from: bytes = b""
    digests: Sequence[np.ndarray[Any, Any]] | None = None

    def __init__(self, root: str | None, test_envs: Sequence[int], hparams: dict[str, Any]) -> None:
        raise NotImplementedError

    def __len__(self) -> int:
        return len(self.datasets)

    def __getitem__(self, index: int) -> Environment:
        return self.datasets[index]

    @classmethod
    def missing(cls, root: str | None) -> str | None:
        """What must be done before the dataset can be built from `root`, in one line; None if nothing."""
        if not cls.NEEDS_DATA:
            return None
        if root is None:
            return cls.to_fetch(f"{cls.__name__} needs --data_dir, the folder that holds its data", root)
        if not Path(root).is_dir():
            return cls.to_fetch(f"data directory {root} does not exist", root)
        return None

    @classmethod
    def to_fetch(cls, missing: str, root: str | None, is_there: bool = False) -> str:
        """`missing`, and the command that fetches the data, or that says all that is wrong with them.

        Just `missing` for a dataset that no source gives.
        """
        from domainbed.download import command

        flags, does = (("--verify",), "shows all that is wrong") if is_there else ((), "fetches it")
        known = command(cls.__name__, root, *flags)
        return f'{missing}; "{known}" {does}' if known else missing

    @classmethod
    def require(cls, root: str | None) -> Path:
        """`root` as a path; raises `UsageError` with what is missing."""
        missing = cls.missing(root)
        if missing:
            raise UsageError(missing)
        return Path(root or ".")

    def counts(self) -> dict[str, dict[str, int]]:
        """Name of each environment -> name of each class -> number of samples, without reading inputs."""
        names = self.class_names or [str(label) for label in range(self.num_classes)]
        table = {}
        for name, environment in zip(self.ENVIRONMENTS, self.datasets, strict=True):
            per_class = np.bincount(labels_of(environment), minlength=self.num_classes)
            table[name] = {label: int(n) for label, n in zip(names, per_class, strict=True)}
        return table


def labels_of(dataset: Any) -> np.ndarray[Any, Any]:  # noqa: ANN401 - whatever torch calls a dataset
    """Labels (N,) int64 of a map-style dataset, without reading its inputs where it says them.

    Knows `targets`, TensorDataset (the second tensor), and views with `keys` or `indices` over another
    dataset; anything else is read item by item.
    """
    if hasattr(dataset, "targets"):
        return np.asarray(dataset.targets, dtype=np.int64)
    if hasattr(dataset, "tensors"):
        return np.asarray(dataset.tensors[1], dtype=np.int64)
    for below, keys in (("underlying_dataset", "keys"), ("dataset", "indices")):
        if hasattr(dataset, below) and hasattr(dataset, keys):
            inner = labels_of(getattr(dataset, below))
            return inner[np.asarray(getattr(dataset, keys), dtype=np.int64)]
    if hasattr(dataset, "datasets"):
        return np.concatenate([labels_of(part) for part in dataset.datasets])
    return np.array([int(dataset[i][1]) for i in range(len(dataset))], dtype=np.int64)

"""Base class of datasets: a list of environments of (input, label) pairs with the same classes.

No module of this package imports torch before a dataset is built: tables of results need the names of
environments, not their images.
"""

from __future__ import annotations

import shlex
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar

import numpy as np

from domainbed.console import program_name
from domainbed.errors import UsageError
from domainbed.hparams import Table

if TYPE_CHECKING:
    from torch.utils.data import Dataset

    from domainbed.datasets.preprocessing import Preprocessing
    from domainbed.datasets.reading_rules import Skipped

    Environment = Dataset[tuple[Any, Any]]


class MultipleDomainDataset:
    """A list of environments, `datasets`, in the order of `ENVIRONMENTS`.

    The constructor of every concrete class takes `(root, test_envs, hparams)`, positionally: the data
    directory, the indices of the target environments (which are not augmented), and the hyper-parameters. It
    sets `datasets`, `input_shape` and `num_classes`. That of this class does nothing, as in upstream.

    An environment is a map-style dataset of (input, label). It has `targets`, its labels as a sequence of
    ints, or is a `TensorDataset`. It may also define:

    - `batch(indices)`: inputs (B, *input_shape) float32 and labels (B,) int64 of the samples at `indices`;
    - `augmented_batch(indices, counters)`: the same with random augmentation, seeded by the integers
      `counters`; and `in_memory`, whether this reads no file;
    - `plain()`: a view of the same samples without augmentation.

    Attributes:
        N_STEPS: default number of updates of a run.
        CHECKPOINT_FREQ: default number of updates between evaluations.
        N_WORKERS: largest default number of loader processes.
        ENVIRONMENTS: display names of the environments.
        INPUT_SHAPE: shape of an input, if it does not depend on the hyper-parameters.
        SMALL_IMAGES: whether the default hyper-parameters for small images apply.
        NEEDS_DATA: whether a data directory is needed.
        DOWNLOADABLE: whether `domainbed.scripts.download` can fetch the data. Not inherited, since a
            subclass may read other files.
        SAME_CLASSES: whether every environment must have samples of every class.
        HPARAMS: hyper-parameters of the dataset, as those of an algorithm; those of base classes are
            inherited. A run on the dataset has a value for each in `hparams`.
        READS: optional hyper-parameters (`domainbed.hparams.OPTIONS`) that the dataset reads; a run on it
            refuses others. None if it does not say. Not inherited by classes of plugins.
        PREPROCESSING: how an image file becomes an input, for datasets of images that have no files; see
            `dataset_preprocessing.preprocessing_of`.
        VERSION: incremented when the same files yield different data. Reports do not pool versions.
        datasets: the environments.
        input_shape: shape of an input, a tuple.
        num_classes: number of classes.
        class_names: names of the classes, in the order of the labels.
        copies: for each environment, the position of the first image with the same contents (N,) int64, for
            datasets whose files were compared; see `file_copies.handle_duplicates`.
        skipped: files that are not read, of a dataset that scans folders; None for others.
        notes: lines about the data that a run says at its start.
        summary: identity of the data, set by `contract.build`: `counts`, `checksum` and `version`, and for a
            dataset that scans folders `skipped`, the number of files that are not read by reason.
            `contract.identify_contents` adds `contents` and `copies`.
        source_digest: hash of the data that the environments were drawn from, for environments that are
            drawn with the random numbers of the run.
        image_digests: for each environment, the digests (N,) uint64 of its images; empty if they were not
            decoded.
        image_findings: for each environment, what was found in its images (N,) uint8, if they were decoded;
            see `image_decoding.Finding`.
        image_contents: for each environment, the `hashes.content_hash` of its image files (N, 32) uint8, if
            they were decoded.
    """

    N_STEPS: ClassVar[int] = 5001
    CHECKPOINT_FREQ: ClassVar[int] = 100
    N_WORKERS: ClassVar[int] = 8
    ENVIRONMENTS: ClassVar[Sequence[str]] = ()
    INPUT_SHAPE: ClassVar[tuple[int, ...] | None] = None
    SMALL_IMAGES: ClassVar[bool] = False
    NEEDS_DATA: ClassVar[bool] = True
    DOWNLOADABLE: ClassVar[bool] = False
    SAME_CLASSES: ClassVar[bool] = True
    HPARAMS: ClassVar[Table] = {}
    READS: ClassVar[tuple[str, ...] | None] = None
    PREPROCESSING: ClassVar[Preprocessing | None] = None
    VERSION: ClassVar[int] = 1

    datasets: Sequence[Environment]
    input_shape: tuple[int, ...]
    num_classes: int
    class_names: Sequence[str] = ()
    skipped: Sequence[Skipped] | None = None
    notes: Sequence[str] = ()
    copies: Sequence[np.ndarray[Any, Any]] | None = None
    summary: Mapping[str, Any]
    source_digest: bytes = b""
    image_digests: Sequence[np.ndarray[Any, Any]] | None = None
    image_findings: Sequence[np.ndarray[Any, Any]] | None = None
    image_contents: Sequence[np.ndarray[Any, Any]] | None = None

    def __init__(
        self,
        root: str | None = None,
        test_envs: Sequence[int] = (),
        hparams: Mapping[str, Any] | None = None,
    ) -> None:
        pass

    def __len__(self) -> int:
        return len(self.datasets)

    def __getitem__(self, index: int) -> Environment:
        return self.datasets[index]

    def keep_samples(self, number: int, positions: Sequence[int]) -> None:
        """Keep only the samples at `positions` of environment `number`, which reads image files."""
        environment: Any = self.datasets[number]
        environment.samples = [environment.samples[position] for position in positions]
        environment.targets = [label for _, label in environment.samples]

    @classmethod
    def missing(cls, root: str | None) -> str | None:
        """One line on why the dataset cannot be built from `root`, and what to do; None if it can."""
        if not cls.NEEDS_DATA:
            return None
        if root is None:
            return cls.with_command(f"{cls.__name__} needs --data_dir, the folder that holds its data", root)
        if not Path(root).is_dir():
            return cls.with_command(f"data directory {root} does not exist", root)
        return None

    @classmethod
    def missing_for(cls, root: str | None, hparams: Mapping[str, Any]) -> str | None:
        """As `missing`, for a run with these hyper-parameters, which may need fewer files."""
        return cls.missing(root)

    @classmethod
    def with_command(cls, problem: str, root: str | None, verify: bool = False, source: str = "") -> str:
        """`problem`, followed by the command that downloads the data if the dataset is `DOWNLOADABLE`.

        Args:
            problem: what is missing.
            root: the data directory; None stands for a directory of the user's choice, "DATA".
            verify: name the command that lists everything that is wrong with existing data instead.
            source: name of the source to download; by default, that of the dataset.
        """
        if not vars(cls).get("DOWNLOADABLE", False):
            return problem
        program = program_name("domainbed.scripts.download", "download")
        words = ["--datasets", source or cls.__name__, "--data_dir", root or "DATA"]
        if verify:
            words.append("--verify")
        what = "list everything that is wrong" if verify else "download it"
        return f'{problem}; run "{program} {shlex.join(words)}" to {what}'

    @classmethod
    def require(cls, root: str | None) -> Path:
        """The data directory as a path.

        Raises: UsageError with the line from `missing`, if there is one.
        """
        missing = cls.missing(root)
        if missing:
            raise UsageError(missing)
        return Path(root or ".")

    def label_names(self) -> list[str]:
        """The name of each label: `class_names`, or else the labels as text."""
        return [*self.class_names] or [str(label) for label in range(self.num_classes)]

    def counts(self) -> dict[str, dict[str, int]]:
        """Number of samples by environment and class name, without reading inputs."""
        names = self.label_names()
        table = {}
        for name, environment in zip(self.ENVIRONMENTS, self.datasets, strict=True):
            per_class = np.bincount(labels_of(environment), minlength=self.num_classes)
            table[name] = {label: int(n) for label, n in zip(names, per_class, strict=True)}
        return table


def labels_of(dataset: Any) -> np.ndarray[Any, Any]:  # noqa: ANN401 - any map-style dataset
    """Labels (N,) int64 of a map-style dataset, without reading its inputs if possible.

    Labels are taken from `targets` or from the second tensor of a `TensorDataset`, also through
    `SplitDataset`, `Subset` and `ConcatDataset`. Other datasets are read sample by sample.
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

"""ColoredMNIST, RotatedMNIST and ColoredMNIST_IRM: environments made from the MNIST files."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar, TypeVar

from domainbed.datasets import REGISTRY
from domainbed.datasets.base import MultipleDomainDataset
from domainbed.datasets.digit_environments import (
    ANGLES,
    COLORS,
    colored,
    colored_by,
    digits_digest,
    distribute,
    rotated,
)
from domainbed.datasets.preprocessing import Preprocessing
from domainbed.errors import RunError, UsageError
from domainbed.hparams import option

if TYPE_CHECKING:
    from torch import Tensor

    from domainbed.datasets.base import Environment

Parameter = TypeVar("Parameter")

TEST_SOURCE = "MNIST_test"
"""Name of the download of the test set's files (`domainbed.download.sources`)."""

_FILES = {
    "train": ("train-images-idx3-ubyte", "train-labels-idx1-ubyte"),
    "test": ("t10k-images-idx3-ubyte", "t10k-labels-idx1-ubyte"),
}
"""Part of MNIST -> its images and labels."""


class MNISTFiles(MultipleDomainDataset):
    """Base class of datasets that read the four unpacked files in `MNIST/raw` of the data directory.

    With the hyper-parameter `"mnist": "test"` they need the two files of the test set alone.
    """

    READS: ClassVar[tuple[str, ...] | None] = ()
    SMALL_IMAGES = True

    @classmethod
    def missing(cls, root: str | None) -> str | None:
        """One line on which of MNIST's four files are missing; None if none is."""
        return cls._missing(root, tuple(_FILES))

    @classmethod
    def missing_for(cls, root: str | None, hparams: Mapping[str, Any]) -> str | None:
        """As `missing`, but of the files that these hyper-parameters need.

        Raises: UsageError for an invalid value of `mnist`.
        """
        return cls._missing(root, ("test",)) if only_test_set(hparams) else cls.missing(root)

    @classmethod
    def _missing(cls, root: str | None, parts: Sequence[str]) -> str | None:
        """One line on which files of `parts` are missing; None if none is."""
        missing = super().missing(root)
        if missing or root is None:
            return missing
        folder = Path(root) / "MNIST" / "raw"
        absent = {part: [name for name in _FILES[part] if not (folder / name).is_file()] for part in parts}
        names = [name for part in parts for name in absent[part]]
        if not names:
            return None
        problem = f"{cls.__name__} needs MNIST's unpacked files in {folder}, which lacks {', '.join(names)}"
        if absent.get("train") and not absent.get("test"):
            problem += """ (--hparams '{"mnist": "test"}' needs the test set alone)"""
        return cls.with_command(problem, root, source=TEST_SOURCE if "train" not in parts else "")

    @classmethod
    def read(cls, root: str | None, train: bool) -> tuple[Tensor, Tensor]:
        """Images (N, 28, 28) uint8 and labels (N,) int64 of MNIST's training set or test set.

        Raises: UsageError if no directory is given or files are missing; RunError if files are damaged.
        """
        from torchvision.datasets.mnist import read_image_file, read_label_file

        if root is None:
            error = UsageError("Data directory not specified!")
            error.add_note(f"{cls.__name__} needs --data_dir, the folder that contains MNIST/raw.")
            raise error
        part = "train" if train else "test"
        missing = cls._missing(root, (part,))
        if missing:
            raise UsageError(missing)
        folder = Path(root) / "MNIST" / "raw"
        image_file, label_file = (str(folder / name) for name in _FILES[part])
        try:
            images, labels = read_image_file(image_file), read_label_file(label_file)
            if len(images) != len(labels):
                raise ValueError(f"{len(images):,} images, but {len(labels):,} labels")
        except (OSError, ValueError, RuntimeError, AssertionError, TypeError, KeyError) as error:
            raise RunError(
                f"MNIST's files in {folder} are damaged ({error}); unpack or download them again"
            ) from error
        return images, labels

    @classmethod
    def read_parts(
        cls, root: str | None, hparams: Mapping[str, Any], default: Sequence[str]
    ) -> tuple[Tensor, Tensor]:
        """As `read`: the parts `default`, one after the other, or the test set if `hparams` say so."""
        import torch

        if root is not None and (missing := cls.missing_for(root, hparams)):
            raise UsageError(missing)  # which names all missing files
        parts = ("test",) if only_test_set(hparams) else default
        images, labels = zip(*(cls.read(root, train=part == "train") for part in parts), strict=True)
        return torch.cat(images), torch.cat(labels)


def only_test_set(hparams: Mapping[str, Any]) -> bool:
    """Whether the hyper-parameter `mnist` chooses the test set alone. Raises UsageError for other values."""
    return option(hparams, "mnist") == "test"


class MultipleEnvironmentMNIST(MNISTFiles):
    """MNIST's 70,000 digits, shuffled with torch's global generator and distributed over the environments.

    With the hyper-parameter `"mnist": "test"`, the 10,000 digits of the test set.

    Args:
        root: folder that contains `MNIST/raw` with the unpacked files.
        environments: a parameter for each environment.
        dataset_transform: creates an environment from images (N, 28, 28) uint8, labels (N,) int64 and its
            parameter. Called in the order of the environments.
        input_shape: shape of an input.
        num_classes: number of classes.
        hparams: hyper-parameters of the run; None for default ones.
    """

    READS = ("mnist",)

    def __init__(
        self,
        root: str | None,
        environments: Sequence[Parameter],
        dataset_transform: Callable[[Tensor, Tensor, Parameter], Environment],
        input_shape: tuple[int, ...],
        num_classes: int,
        hparams: Mapping[str, Any] | None = None,
    ) -> None:
        images, labels = self.read_parts(root, hparams or {}, ("train", "test"))
        self.datasets = distribute(images, labels, environments, dataset_transform)
        self.source_digest = digits_digest(images, labels)
        self.input_shape = input_shape
        self.num_classes = num_classes


@REGISTRY.register()
class ColoredMNIST(MultipleEnvironmentMNIST):
    """Digits below five or not, with a colour that predicts the label better than the shape does.

    The label is wrong for a quarter of the digits. The colour (one of two channels) differs from the label
    with probability 0.1, 0.2 or 0.9 (Arjovsky et al. 2019, section 5.1). Inputs (2, 28, 28) in [0, 1].
    """

    DOWNLOADABLE = True

    ENVIRONMENTS = tuple(COLORS)
    INPUT_SHAPE = (2, 28, 28)

    def __init__(self, root: str | None, test_envs: Sequence[int], hparams: dict[str, Any]) -> None:
        flips = list(COLORS.values())
        super().__init__(root, flips, self.color_dataset, self.INPUT_SHAPE, 2, hparams)

    def color_dataset(self, images: Tensor, labels: Tensor, environment: float) -> Environment:
        """An environment of `colored` digits; upstream's name."""
        return colored(images, labels, environment)


@REGISTRY.register()
class ColoredMNIST_IRM(MNISTFiles):
    """ColoredMNIST as in the IRM paper's own experiment (Arjovsky et al. 2019, section 5.1).

    Only MNIST's training set is used. Its first 50,000 digits are shuffled and alternate between the two
    source environments. The last 10,000 are the third environment, the target. Every second row and column of
    pixels is dropped: inputs (2, 14, 14) in [0, 1]. The authors train on all of a source environment and test
    on all of the target (`--splits whole`); `sweeps/colored_mnist_irm.toml` has the other settings. The
    hyper-parameter `grey` removes the colour, which gives the paper's grayscale baseline. `"mnist": "test"`
    divides the test set in the same proportions instead.
    """

    READS = ("copies", "grey", "mnist")
    DOWNLOADABLE = True

    ENVIRONMENTS = tuple(COLORS)
    INPUT_SHAPE = (2, 14, 14)

    def __init__(self, root: str | None, test_envs: Sequence[int], hparams: dict[str, Any]) -> None:
        images, labels = self.read_parts(root, hparams, ("train",))
        self.source_digest = digits_digest(images, labels)
        images = images[:, ::2, ::2]
        n = len(images) * 5 // 6
        make = colored_by(hparams)
        *sources, target = COLORS.values()
        self.datasets = [
            *distribute(images[:n], labels[:n], sources, make),
            *distribute(images[n:], labels[n:], [target], make),
        ]
        self.input_shape = self.INPUT_SHAPE
        self.num_classes = 2


@REGISTRY.register()
class RotatedMNIST(MultipleEnvironmentMNIST):
    """Digits rotated counter-clockwise by 0 to 75 degrees (Ghifary et al. 2015).

    Inputs (1, 28, 28) in [0, 1].
    """

    DOWNLOADABLE = True

    ENVIRONMENTS = tuple(ANGLES)
    INPUT_SHAPE = (1, 28, 28)
    PREPROCESSING = Preprocessing(side=28, mean=(0.0,), std=(1.0,))

    def __init__(self, root: str | None, test_envs: Sequence[int], hparams: dict[str, Any]) -> None:
        angles = list(ANGLES.values())
        super().__init__(root, angles, self.rotate_dataset, self.INPUT_SHAPE, 10, hparams)

    def rotate_dataset(self, images: Tensor, labels: Tensor, angle: int) -> Environment:
        """An environment of `rotated` digits; upstream's name."""
        return rotated(images, labels, angle)

"""ColoredMNIST, RotatedMNIST and ColoredMNIST_IRM: environments made from the MNIST files."""

from __future__ import annotations

from collections.abc import Callable, Sequence
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
from domainbed.errors import RunError, UsageError

if TYPE_CHECKING:
    from torch import Tensor

    from domainbed.datasets.base import Environment

Parameter = TypeVar("Parameter")

_FILES = (
    "train-images-idx3-ubyte",
    "train-labels-idx1-ubyte",
    "t10k-images-idx3-ubyte",
    "t10k-labels-idx1-ubyte",
)


class MNISTFiles(MultipleDomainDataset):
    """Base class of datasets that read the four unpacked files in `MNIST/raw` of the data directory."""

    READS: ClassVar[tuple[str, ...] | None] = ()
    SMALL_IMAGES = True

    @classmethod
    def missing(cls, root: str | None) -> str | None:
        """One line on which of MNIST's files are missing; None if none is."""
        missing = super().missing(root)
        if missing or root is None:
            return missing
        folder = Path(root) / "MNIST" / "raw"
        absent = [name for name in _FILES if not (folder / name).is_file()]
        if not absent:
            return None
        return cls.with_command(
            f"{cls.__name__} needs MNIST's unpacked files in {folder}, which lacks {', '.join(absent)}", root
        )

    @classmethod
    def read(cls, root: str | None, train: bool) -> tuple[Tensor, Tensor]:
        """Images (N, 28, 28) uint8 and labels (N,) int64 of MNIST's training set or test set.

        Raises: UsageError if no directory is given or files are missing; RunError if files are damaged.
        """
        from torchvision.datasets import MNIST

        if root is None:
            error = UsageError("Data directory not specified!")
            error.add_note(f"{cls.__name__} needs --data_dir, the folder that contains MNIST/raw.")
            raise error
        folder = cls.require(root)
        try:
            part = MNIST(str(folder), train=train, download=False)
        except (OSError, ValueError, RuntimeError, AssertionError) as error:
            raise RunError(
                f"MNIST's files in {folder / 'MNIST' / 'raw'} are damaged ({error}); "
                "unpack or download them again"
            ) from error
        return part.data, part.targets


class MultipleEnvironmentMNIST(MNISTFiles):
    """MNIST's 70,000 digits, shuffled with torch's global generator and distributed over the environments.

    Args:
        root: folder that contains `MNIST/raw` with the four unpacked files.
        environments: a parameter for each environment.
        dataset_transform: creates an environment from images (N, 28, 28) uint8, labels (N,) int64 and its
            parameter. Called in the order of the environments.
        input_shape: shape of an input.
        num_classes: number of classes.
    """

    def __init__(
        self,
        root: str | None,
        environments: Sequence[Parameter],
        dataset_transform: Callable[[Tensor, Tensor, Parameter], Environment],
        input_shape: tuple[int, ...],
        num_classes: int,
    ) -> None:
        import torch

        images, labels = (
            torch.cat(both) for both in zip(self.read(root, True), self.read(root, False), strict=True)
        )
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
        super().__init__(root, flips, self.color_dataset, self.INPUT_SHAPE, num_classes=2)

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
    hyper-parameter `grey` removes the colour, which gives the paper's grayscale baseline.
    """

    READS = ("copies", "grey")
    DOWNLOADABLE = True

    ENVIRONMENTS = tuple(COLORS)
    INPUT_SHAPE = (2, 14, 14)

    def __init__(self, root: str | None, test_envs: Sequence[int], hparams: dict[str, Any]) -> None:
        images, labels = self.read(root, train=True)
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

    def __init__(self, root: str | None, test_envs: Sequence[int], hparams: dict[str, Any]) -> None:
        angles = list(ANGLES.values())
        super().__init__(root, angles, self.rotate_dataset, self.INPUT_SHAPE, num_classes=10)

    def rotate_dataset(self, images: Tensor, labels: Tensor, angle: int) -> Environment:
        """An environment of `rotated` digits; upstream's name."""
        return rotated(images, labels, angle)

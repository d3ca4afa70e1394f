"""ColoredMNIST, RotatedMNIST and ColoredMNIST_IRM: environments made from torchvision's MNIST files."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

from domainbed.datasets import REGISTRY
from domainbed.datasets.base import MultipleDomainDataset
from domainbed.datasets.digit_environments import (
    ANGLES,
    COLORS,
    colored,
    colored_by,
    deal,
    fingerprint,
    rotated,
)
from domainbed.errors import RunError, UsageError

if TYPE_CHECKING:
    from torch import Tensor

    from domainbed.datasets.base import Environment

Parameter = TypeVar("Parameter")

_FILES = tuple(
    f"{part}-{kind}-ubyte" for part in ("train", "t10k") for kind in ("images-idx3", "labels-idx1")
)


class MNISTFiles(MultipleDomainDataset):
    """Base of what is made from `MNIST/raw` with the four unpacked files, below the data directory."""

    SMALL_IMAGES = True

    @classmethod
    def missing(cls, root: str | None) -> str | None:
        """Which of MNIST's files are expected where, in one line; None if they are there."""
        missing = super().missing(root)
        if missing or root is None:
            return missing
        folder = Path(root) / "MNIST" / "raw"
        absent = [name for name in _FILES if not (folder / name).is_file()]
        if not absent:
            return None
        return cls.to_fetch(
            f"{cls.__name__} needs MNIST's unpacked files in {folder}; put there {', '.join(absent)}", root
        )

    @classmethod
    def read(cls, root: str | None, train: bool) -> tuple[Tensor, Tensor]:
        """Images (N, 28, 28) uint8 and labels (N,) int64 of the training part (60,000) or the test part.

        Raises: UsageError if no directory is given or files are missing, RunError if they are damaged.
        """
        from torchvision.datasets import MNIST

        if root is None:
            error = UsageError("Data directory not specified!")
            error.add_note(f"{cls.__name__} needs the folder that holds MNIST/raw.")
            raise error
        folder = cls.require(root)
        try:
            part = MNIST(str(folder), train=train, download=False)
        except (OSError, ValueError, RuntimeError, AssertionError) as error:
            raise RunError(
                f"the files in {folder / 'MNIST' / 'raw'} are damaged ({error}); "
                "unpack or download them again"
            ) from error
        return part.data, part.targets


class MultipleEnvironmentMNIST(MNISTFiles):
    """MNIST's 70,000 digits, shuffled by torch's global generator and dealt to the environments in turn.

    Args:
        root: folder that holds `MNIST/raw` with the four unpacked files.
        environments: a parameter for each environment.
        dataset_transform: makes an environment of images (N, 28, 28) uint8, labels (N,) int64 and its
            parameter; called for one environment after the other.
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
        self.datasets = deal(images, labels, environments, dataset_transform)
        self.drawn_from = fingerprint(images, labels)
        self.input_shape = input_shape
        self.num_classes = num_classes


@REGISTRY.register()
class ColoredMNIST(MultipleEnvironmentMNIST):
    """Digits below five or not, with a colour that tells more than the shape (Arjovsky et al. 2019).

    The label is wrong for a quarter of the digits; the colour (one of two channels) differs from the
    label with a probability of 0.1, 0.2, 0.9. Inputs (2, 28, 28) in [0, 1].
    """

    ENVIRONMENTS = tuple(COLORS)
    INPUT_SHAPE = (2, 28, 28)

    def __init__(self, root: str | None, test_envs: Sequence[int], hparams: dict[str, Any]) -> None:
        flips = list(COLORS.values())
        super().__init__(root, flips, self.color_dataset, self.INPUT_SHAPE, num_classes=2)

    def color_dataset(self, images: Tensor, labels: Tensor, environment: float) -> Environment:
        """`colored` digits, under upstream's name."""
        return colored(images, labels, environment)


@REGISTRY.register()
class ColoredMNIST_IRM(MNISTFiles):
    """ColoredMNIST as the IRM paper's own experiment has it (Arjovsky et al. 2019, section 5.1).

    MNIST's training part alone: of its first 50,000 digits, shuffled, every other one makes an
    environment; the last 10,000 are the third, which is meant as the target. Every second row and column
    of pixels is left out: inputs (2, 14, 14) in [0, 1]. The authors trained on all of a source and tested
    on all of the target (`--splits whole`); `sweeps/colored_mnist_irm.toml` has the rest. With the
    hyper-parameter `grey` there is no colour: the paper's reference.
    """

    ENVIRONMENTS = tuple(COLORS)
    INPUT_SHAPE = (2, 14, 14)

    def __init__(self, root: str | None, test_envs: Sequence[int], hparams: dict[str, Any]) -> None:
        images, labels = self.read(root, train=True)
        self.drawn_from = fingerprint(images, labels)
        images = images[:, ::2, ::2]
        n = len(images) * 5 // 6
        make = colored_by(hparams)
        *sources, target = COLORS.values()
        self.datasets = [
            *deal(images[:n], labels[:n], sources, make),
            *deal(images[n:], labels[n:], [target], make),
        ]
        self.input_shape = self.INPUT_SHAPE
        self.num_classes = 2


@REGISTRY.register()
class RotatedMNIST(MultipleEnvironmentMNIST):
    """Digits turned counter-clockwise by 0 to 75 degrees (Ghifary et al. 2015).

    Inputs (1, 28, 28) in [0, 1].
    """

    ENVIRONMENTS = tuple(ANGLES)
    INPUT_SHAPE = (1, 28, 28)

    def __init__(self, root: str | None, test_envs: Sequence[int], hparams: dict[str, Any]) -> None:
        angles = list(ANGLES.values())
        super().__init__(root, angles, self.rotate_dataset, self.INPUT_SHAPE, num_classes=10)

    def rotate_dataset(self, images: Tensor, labels: Tensor, angle: int) -> Environment:
        """`rotated` digits, under upstream's name."""
        return rotated(images, labels, angle)

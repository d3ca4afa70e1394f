"""ColoredMNIST and RotatedMNIST: environments made from torchvision's MNIST files."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

from domainbed.datasets import REGISTRY
from domainbed.datasets.base import MultipleDomainDataset
from domainbed.errors import RunError, UsageError
from domainbed.lib.rotation import rotate_like_pil

if TYPE_CHECKING:
    from torch import Tensor

    from domainbed.datasets.base import Environment
    from domainbed.lib.uint8_images import UInt8Images

Parameter = TypeVar("Parameter")

_FILES = tuple(
    f"{part}-{kind}-ubyte" for part in ("train", "t10k") for kind in ("images-idx3", "labels-idx1")
)


class MultipleEnvironmentMNIST(MultipleDomainDataset):
    """MNIST's 70,000 digits, shuffled by torch's global generator and dealt to the environments in turn.

    Args:
        root: folder that holds `MNIST/raw` with the four unpacked files.
        environments: a parameter for each environment.
        dataset_transform: makes an environment of images (N, 28, 28) uint8, labels (N,) int64 and its
            parameter; called for one environment after the other.
        input_shape: shape of an input.
        num_classes: number of classes.
    """

    SMALL_IMAGES = True

    def __init__(
        self,
        root: str | None,
        environments: Sequence[Parameter],
        dataset_transform: Callable[[Tensor, Tensor, Parameter], Environment],
        input_shape: tuple[int, ...],
        num_classes: int,
    ) -> None:
        import torch

        if root is None:
            error = UsageError("Data directory not specified!")
            error.add_note(f"{type(self).__name__} needs the folder that holds MNIST/raw.")
            raise error
        images, labels = _load(self.require(root))
        order = torch.randperm(len(images))
        images, labels = images[order], labels[order]
        k = len(environments)
        self.datasets = [
            dataset_transform(images[i::k], labels[i::k], parameter)
            for i, parameter in enumerate(environments)
        ]
        self.input_shape = input_shape
        self.num_classes = num_classes

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
        return f"{cls.__name__} needs MNIST's unpacked files in {folder}; put there {', '.join(absent)}"


@REGISTRY.register()
class ColoredMNIST(MultipleEnvironmentMNIST):
    """Digits below five or not, with a colour that tells more than the shape (Arjovsky et al. 2019).

    The label is wrong for a quarter of the digits; the colour (one of two channels) differs from the
    label with a probability of 0.1, 0.2, 0.9. Inputs (2, 28, 28) in [0, 1].
    """

    ENVIRONMENTS = ("+90%", "+80%", "-90%")
    INPUT_SHAPE = (2, 28, 28)

    def __init__(self, root: str | None, test_envs: Sequence[int], hparams: dict[str, Any]) -> None:
        super().__init__(root, [0.1, 0.2, 0.9], self.color_dataset, self.INPUT_SHAPE, num_classes=2)

    def color_dataset(self, images: Tensor, labels: Tensor, environment: float) -> Environment:
        """Draws the label's noise for all images, then the colour's."""
        import torch

        y = (labels < 5) ^ (torch.rand(len(labels)) < 0.25)
        color = y ^ (torch.rand(len(labels)) < environment)
        x = torch.stack([images, images], dim=1)
        x[torch.arange(len(x)), (~color).long()] = 0
        return _unit_range(x, y.long())


@REGISTRY.register()
class RotatedMNIST(MultipleEnvironmentMNIST):
    """Digits turned counter-clockwise by 0 to 75 degrees (Ghifary et al. 2015).

    Inputs (1, 28, 28) in [0, 1].
    """

    ENVIRONMENTS = ("0", "15", "30", "45", "60", "75")
    INPUT_SHAPE = (1, 28, 28)

    def __init__(self, root: str | None, test_envs: Sequence[int], hparams: dict[str, Any]) -> None:
        angles = [int(name) for name in self.ENVIRONMENTS]
        super().__init__(root, angles, self.rotate_dataset, self.INPUT_SHAPE, num_classes=10)

    def rotate_dataset(self, images: Tensor, labels: Tensor, angle: int) -> Environment:
        """Turns every image as PIL does, whose cut to uint8 is part of the dataset."""
        import torch

        turned = rotate_like_pil(images.numpy(), angle)
        return _unit_range(torch.from_numpy(turned).unsqueeze(1), labels)


def _load(root: Path) -> tuple[Tensor, Tensor]:
    """Images (70000, 28, 28) uint8 and labels (70000,) int64, the training part first."""
    import torch
    from torchvision.datasets import MNIST

    try:
        parts = [MNIST(str(root), train=train, download=False) for train in (True, False)]
    except (OSError, ValueError, RuntimeError, AssertionError) as error:
        raise RunError(
            f"the files in {root / 'MNIST' / 'raw'} are damaged ({error}); unpack or download them again"
        ) from error
    return torch.cat([part.data for part in parts]), torch.cat([part.targets for part in parts])


def _unit_range(x: Tensor, y: Tensor) -> UInt8Images:
    """An environment of x / 255, held as uint8."""
    from domainbed.lib.uint8_images import UInt8Images

    return UInt8Images(x, y, mean=0.0, std=1.0)

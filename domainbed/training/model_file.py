"""model.pkl: a trained model as upstream writes it, read without executing anything."""

from __future__ import annotations

import contextlib
import io
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import torch

from domainbed.errors import UsageError
from domainbed.files import write_atomic

if TYPE_CHECKING:
    from domainbed.algorithms.base import Algorithm
    from domainbed.datasets.base import MultipleDomainDataset

_KEYS = ("args", "model_input_shape", "model_num_classes", "model_num_domains", "model_hparams", "model_dict")


def save_model(
    path: Path, algorithm: Algorithm, dataset: MultipleDomainDataset, num_domains: int, args: dict[str, Any]
) -> None:
    """Write `path`, whole or not at all (keys: spec domainbed-cli.md, 4.1)."""
    content = (
        args,
        dataset.input_shape,
        dataset.num_classes,
        num_domains,
        algorithm.hparams,
        {
            name: value.cpu() if isinstance(value, torch.Tensor) else value
            for name, value in algorithm.state_dict().items()
        },
    )
    buffer = io.BytesIO()
    torch.save(dict(zip(_KEYS, content, strict=True)), buffer)
    write_atomic(path, buffer.getvalue())


def load_model(path: Path) -> Algorithm:
    """The algorithm in a model.pkl of ours or of upstream, on the CPU, in evaluation mode.

    Raises: UsageError if the file is not such a file, or would execute code (it never does).
    """
    from domainbed.algorithms import get_algorithm_class
    from domainbed.hparams_registry import default_hparams

    with _one_line(path):
        with torch.serialization.safe_globals(_numpy_scalars()):
            content = torch.load(path, map_location="cpu", weights_only=True)
        args, input_shape, num_classes, num_domains, hparams, state = (content[key] for key in _KEYS)
        given = {
            name: value.item() if isinstance(value, np.generic) else value for name, value in hparams.items()
        }
        # Old files lack newer entries; and what is loaded next need not be there to start from.
        hparams = default_hparams(args["algorithm"], args["dataset"]) | given | {"pretrained": False}
        cls = get_algorithm_class(args["algorithm"])
        algorithm = cls(tuple(input_shape), num_classes, num_domains, hparams)
        algorithm.load_state_dict(state)
    return algorithm.eval()


@contextlib.contextmanager
def _one_line(path: Path) -> Iterator[None]:
    try:
        yield
    except Exception as error:  # whatever a damaged or foreign file makes torch, or the algorithm, raise
        reason = " ".join(f"{type(error).__name__}: {error}".split())[:200]
        raise UsageError(f"{path} is not a model written by train: {reason}") from None


def _numpy_scalars() -> list[Any]:
    """What torch's safe loader must know to read the NumPy scalars in upstream's hyper-parameters."""
    rebuild: Any = np.float64(0).__reduce__()[0]
    # NumPy 1, which upstream pins, calls the same function by another name.
    names = [(rebuild, f"numpy.{core}.multiarray.scalar") for core in ("core", "_core")]
    kinds = ("f8", "f4", "i8", "i4", "?", "U")
    return [*names, np.dtype, *(type(np.dtype(kind)) for kind in kinds)]

"""Write and read model.pkl, a trained model in upstream's format. Reading never executes code."""

from __future__ import annotations

import contextlib
import io
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import torch

from domainbed.errors import DomainBedError, UnknownName, UsageError
from domainbed.files import write_atomic

if TYPE_CHECKING:
    from domainbed.algorithms.base import Algorithm
    from domainbed.datasets.base import MultipleDomainDataset


def save_model(
    path: Path, algorithm: Algorithm, dataset: MultipleDomainDataset, num_domains: int, args: dict[str, Any]
) -> None:
    """Write a model to `path`, with the keys listed in docs/compatibility.md ("Records").

    Args:
        path: the file to write, atomically.
        algorithm: the trained algorithm.
        dataset: the dataset that it was trained on.
        num_domains: number of source environments.
        args: the settings of the run.
    """
    weights = {
        name: value.cpu() if isinstance(value, torch.Tensor) else value
        for name, value in algorithm.state_dict().items()
    }
    content = {
        "args": args,
        "model_input_shape": dataset.input_shape,
        "model_num_classes": dataset.num_classes,
        "model_num_domains": num_domains,
        "model_hparams": dict(algorithm.hparams),
        "model_dict": weights,
    }
    buffer = io.BytesIO()
    torch.save(content, buffer)
    write_atomic(path, buffer.getvalue())


def load_model(path: Path) -> Algorithm:
    """Load the algorithm from a model.pkl of this package or of upstream, on the CPU, in evaluation mode.

    Raises: UsageError if the file is no such model, or would execute code.
    """
    return load_model_and_args(path)[0]


def load_model_and_args(path: Path) -> tuple[Algorithm, dict[str, Any]]:
    """Load a model as `load_model` does, with the settings of its run as recorded.

    Raises: UsageError if the file is no such model, or would execute code.
    """
    from domainbed.algorithms import get_algorithm_class
    from domainbed.hparams_registry import default_hparams

    with _load_errors_in_one_line(path):
        with torch.serialization.safe_globals(_numpy_scalar_globals()):
            content = torch.load(path, map_location="cpu", weights_only=True)
        args = content["args"]
        saved_hparams = {
            name: value.item() if isinstance(value, np.generic) else value
            for name, value in content["model_hparams"].items()
        }
        # Old files lack newer hyper-parameters. Pretrained weights would be overwritten, so they are not
        # needed.
        hparams = default_hparams(args["algorithm"], args["dataset"]) | saved_hparams | {"pretrained": False}
        algorithm = get_algorithm_class(args["algorithm"])(
            tuple(content["model_input_shape"]),
            content["model_num_classes"],
            content["model_num_domains"],
            hparams,
        )
        algorithm.load_state_dict(content["model_dict"])
    return algorithm.eval(), args


@contextlib.contextmanager
def _load_errors_in_one_line(path: Path) -> Iterator[None]:
    try:
        yield
    except OSError as error:
        raise UsageError(f"model {path} cannot be read: {error.strerror or error}") from None
    except UnknownName as error:
        raise UsageError(
            f"model {path} needs a plugin that is missing here ({error}); install it, or name its module in "
            "DOMAINBED_PLUGINS"
        ) from None
    except DomainBedError as error:
        raise UsageError(f"model {path} cannot be built: {error}") from error
    except Exception as error:  # torch and the algorithm raise almost anything for a damaged or foreign file
        reason = " ".join(f"{type(error).__name__}: {error}".split())[:200]
        raise UsageError(f"{path} is not a model written by train: {reason}") from None


def _numpy_scalar_globals() -> list[Any]:
    """Globals that torch's safe loader needs for the NumPy scalars in upstream's hyper-parameters."""
    rebuild: Any = np.float64(0).__reduce__()[0]
    # NumPy 1, which upstream pins, calls the same function by another name.
    names = [(rebuild, f"numpy.{core}.multiarray.scalar") for core in ("core", "_core")]
    kinds = ("f8", "f4", "i8", "i4", "?", "U")
    return [*names, np.dtype, *(type(np.dtype(kind)) for kind in kinds)]

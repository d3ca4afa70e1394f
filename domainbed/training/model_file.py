"""model.pkl: a trained model as upstream writes it, read without executing anything."""

from __future__ import annotations

import io
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import torch

from domainbed.errors import UsageError
from domainbed.lib.atomic import write_whole

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
    write_whole(path, buffer.getvalue())


def load_model(path: Path) -> Algorithm:
    """The algorithm in a model.pkl of ours or of upstream, on the CPU, in evaluation mode.

    Raises: UsageError if the file is not such a file, or would execute code (it never does).
    """
    from domainbed.algorithms import get_algorithm_class

    # Upstream's hyper-parameters hold NumPy scalars, which torch's safe loader takes only when told.
    rebuild: Any = np.float64(0).__reduce__()[0]  # the function that NumPy's pickles of scalars name
    scalars: list[Any] = [rebuild, np.dtype, *(type(np.dtype(kind)) for kind in ("f8", "i8", "?"))]
    try:
        with torch.serialization.safe_globals(scalars):
            content = torch.load(path, map_location="cpu", weights_only=True)
        args, input_shape, num_classes, num_domains, hparams, state = (content[key] for key in _KEYS)
    except Exception as error:
        reason = " ".join(str(error).split())[:200]
        raise UsageError(f"{path} is not a model written by train: {reason}") from None
    hparams = {
        name: value.item() if isinstance(value, np.generic) else value for name, value in hparams.items()
    }
    # What is loaded next need not be there to start from.
    hparams = hparams | {"pretrained": False}
    algorithm = get_algorithm_class(args["algorithm"])(tuple(input_shape), num_classes, num_domains, hparams)
    algorithm.load_state_dict(state)
    return algorithm.eval()

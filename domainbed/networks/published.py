"""Weights that somebody published: where they lie on this machine, and where they are fetched from."""

from __future__ import annotations

import http.client
import logging
import re
import urllib.request
from dataclasses import dataclass
from pathlib import Path

import torch

from domainbed.errors import UsageError, misspelt
from domainbed.networks.backbones import timm_config

ANSWER_WITHIN = 5.0
"""Seconds that a server has to answer before we call the machine offline."""

_log = logging.getLogger(__name__)


@dataclass(frozen=True)
class Pretrained:
    """Weights that somebody published.

    Attributes:
        name: the network and the tag of its weights.
        url: where the file is; empty if nobody published any.
        files: names that the file may have in the hub cache; a download gets the first.
        repository: Hugging Face repository whose local cache is looked into; empty for none.
        filename: name of the file in that repository.
    """

    name: str
    url: str
    files: tuple[str, ...]
    repository: str = ""
    filename: str = ""

    def find(self) -> Path | None:
        """The file on this machine, or None; asks no network."""
        for file in self.files:
            if (checkpoints() / file).is_file():
                return checkpoints() / file
        return _in_hugging_face_cache(self.repository, self.filename) if self.repository else None

    def download(self) -> Path:
        """Fetch the file into the hub cache; raises UsageError with what to put where if that fails."""
        instead = (
            'name a file as hyper-parameter "weights_file", or train from scratch with "pretrained": false'
        )
        if not self.url:
            raise UsageError(f"nobody published weights of {self.name}; {instead}")
        file = self.files[0]
        digest = re.search(r"-([0-9a-f]{8,})\.", file)
        try:
            # torch's download waits for ever, so ask first whether anybody is there.
            urllib.request.urlopen(
                urllib.request.Request(self.url, method="HEAD"), timeout=ANSWER_WITHIN
            ).close()
            _log.info("downloading weights of %s", self.name)
            checkpoints().mkdir(parents=True, exist_ok=True)
            torch.hub.download_url_to_file(
                self.url, str(checkpoints() / file), digest and digest[1], progress=True
            )
        except (OSError, RuntimeError, http.client.HTTPException) as error:
            raise UsageError(
                f"no weights of {self.name}: not on this machine, and could not be downloaded ({error}); "
                f"put {file} into {checkpoints()}, {instead}"
            ) from None
        return checkpoints() / file


def checkpoints() -> Path:
    """Folder of torch's hub cache that holds weights (TORCH_HOME moves it)."""
    return Path(torch.hub.get_dir()) / "checkpoints"


def of_torchvision(architecture: str, tag: str) -> Pretrained:
    """torchvision's weights of e.g. "resnet18" with the tag e.g. "IMAGENET1K_V1".

    Raises: UsageError for an unknown tag.
    """
    urls = torchvision_urls(architecture)
    if tag not in urls:
        raise misspelt(f"torchvision has no weights {tag!r} of {architecture}", tag, urls)
    return Pretrained(f"torchvision {architecture} ({tag})", urls[tag], (urls[tag].rpartition("/")[2],))


def torchvision_urls(architecture: str) -> dict[str, str]:
    """Tag of each of torchvision's weights of a network -> where the file is."""
    from torchvision.models import get_model_weights

    return {weights.name: weights.url for weights in get_model_weights(architecture)}


def of_timm(name: str) -> Pretrained:
    """The weights that timm knows as `name`, e.g. "resnet50.ram_in1k"; without a tag its first choice."""
    config = timm_config(name)
    tagged = f"{config.architecture}.{config.tag}" if config.tag else str(config.architecture)
    original = str(config.url or "")  # may be in a format of its own
    if not config.hf_hub_id:
        return Pretrained(f"timm {tagged}", original, (original.rpartition("/")[2], f"{tagged}.pth"))
    from huggingface_hub import hf_hub_url

    filename = config.hf_hub_filename or "model.safetensors"
    files = [f"{tagged}{Path(filename).suffix}", f"{tagged}.safetensors", f"{tagged}.pth"]
    files += [original.rpartition("/")[2]] * bool(original)
    return Pretrained(
        f"timm {tagged}",
        hf_hub_url(config.hf_hub_id, filename),
        tuple(dict.fromkeys(files)),
        config.hf_hub_id,
        filename,
    )


def _in_hugging_face_cache(repository: str, filename: str) -> Path | None:
    try:
        from huggingface_hub import try_to_load_from_cache
    except ImportError:
        return None
    for file in (filename, "pytorch_model.bin"):
        cached = try_to_load_from_cache(repository, file)
        if isinstance(cached, str):
            return Path(cached)
    return None

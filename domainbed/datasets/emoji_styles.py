"""EmojiStyles: real images that need no download, because they are part of the package."""

from __future__ import annotations

import functools
import json
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from domainbed.datasets import REGISTRY
from domainbed.datasets.base import MultipleDomainDataset
from domainbed.datasets.preprocessing import Preprocessing

if TYPE_CHECKING:
    from domainbed.datasets.uint8_images import UInt8Images

_DATA = Path(__file__).parent / "data"


@REGISTRY.register()
class EmojiStyles(MultipleDomainDataset):
    """5,061 emoji of 64x64 pixels: seven Unicode groups (classes) in four styles (environments).

    The styles are those of Twemoji (Flat), Noto (Gradient), Fluent High Contrast (Line) and Fluent
    (Rendered); NOTICE names their authors and licences. The task is to classify emoji in an unseen style.
    Inputs (3, 64, 64) float32 are the darkness of each channel, from 0 (the white background) to 4. The
    largest class has 21 % of the images. Short runs suffice: the defaults are 301 steps and an evaluation
    every 50.
    """

    READS = ()
    ENVIRONMENTS = ("Flat", "Gradient", "Line", "Rendered")
    INPUT_SHAPE = (3, 64, 64)
    N_STEPS = 301
    CHECKPOINT_FREQ = 50
    SMALL_IMAGES = True
    NEEDS_DATA = False
    PREPROCESSING = Preprocessing(side=64, mean=(0.0, 0.0, 0.0), std=(0.25, 0.25, 0.25), inverted=True)

    def __init__(self, root: str | None, test_envs: Sequence[int], hparams: dict[str, Any]) -> None:
        self.input_shape = self.INPUT_SHAPE
        self.class_names = json.loads((_DATA / "emoji_styles.json").read_text(encoding="utf-8"))["classes"]
        self.num_classes = len(self.class_names)
        self.datasets = _environments()


@functools.cache
def _environments() -> tuple[UInt8Images, ...]:
    """The four environments. Cached for the process, because they are never modified."""
    import torch

    from domainbed.datasets.uint8_images import UInt8Images

    with np.load(_DATA / "emoji_styles.npz") as arrays:
        images, labels, environments = arrays["images"], arrays["labels"], arrays["environments"]
    # A background of 0 matches the zero padding of convolutions, which improves accuracy on line drawings.
    darkness = torch.from_numpy(255 - images).permute(0, 3, 1, 2).contiguous()
    targets = torch.from_numpy(labels.astype(np.int64))
    return tuple(
        UInt8Images(darkness[environments == e], targets[environments == e], mean=0.0, std=0.25)
        for e in range(len(EmojiStyles.ENVIRONMENTS))
    )

"""Real pictures in folders, for the datasets that read folders."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from domainbed.datasets.emoji_styles import EmojiStyles

WriteTree = Callable[[Path, Mapping[str, Mapping[str, int]]], None]


@pytest.fixture(scope="session")
def pictures() -> list[Image.Image]:
    """Twelve emoji of 64x64 pixels, RGB."""
    images = EmojiStyles(None, [], {}).datasets[1].images[:240:20]
    return [Image.fromarray(np.ascontiguousarray(image.permute(1, 2, 0).numpy())) for image in images]


@pytest.fixture
def write_tree(pictures: list[Image.Image]) -> WriteTree:
    """`write_tree(root, {environment: {class: n}})` writes n images a class; every third is a JPEG."""

    def write(root: Path, counts: Mapping[str, Mapping[str, int]]) -> None:
        number = 0
        for environment, classes in counts.items():
            (root / environment).mkdir(parents=True)
            for name, n in classes.items():
                folder = root / environment / name
                folder.mkdir()
                for i in range(n):
                    picture = pictures[number % len(pictures)]
                    picture.save(folder / (f"{i}.jpg" if number % 3 == 2 else f"{i}.png"))
                    number += 1

    return write

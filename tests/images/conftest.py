"""Images with many colours, and files of them."""

import numpy as np
import pytest
from PIL import Image

from domainbed.datasets.emoji_styles import EmojiStyles


def picture(number, size):
    """An emoji on a background of many colours, with `size` = (width, height)."""
    width, height = size
    emoji = EmojiStyles(None, [], {}).datasets[number % 4].images[37 * number]
    drawn = Image.fromarray(255 - emoji.permute(1, 2, 0).contiguous().numpy()).resize(size, Image.BICUBIC)
    across, down = np.linspace(0, 1, width)[None, :], np.linspace(0, 1, height)[:, None]
    turns = [np.sin((3 + c) * across + (5 - c) * down + number) for c in range(3)]
    noise = np.random.default_rng(number).normal(0, 6, (height, width, 3))
    colours = 128 + 110 * np.stack(turns, axis=2) + noise
    return Image.fromarray(np.clip(0.5 * np.asarray(drawn) + 0.5 * colours, 0, 255).astype(np.uint8))


@pytest.fixture(scope="session")
def pictures():
    """Eight pictures of 48x40 pixels."""
    return [picture(number, (48, 40)) for number in range(8)]


@pytest.fixture
def write_files(tmp_path):
    """`write_files(sizes)` writes a JPEG file for each (width, height), and returns samples with 3 labels."""

    def write(sizes, folder="files"):
        (tmp_path / folder).mkdir()
        samples = []
        for number, size in enumerate(sizes):
            path = tmp_path / folder / f"{number}.jpg"
            picture(number, size).save(path, quality=90)
            samples.append((str(path), number % 3))
        return samples

    return write

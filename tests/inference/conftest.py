"""A folder of real images, and models trained on it."""

import json
import re
from collections.abc import Callable
from pathlib import Path

import pytest
from PIL import Image

import domainbed
from domainbed.datasets.emoji_styles import EmojiStyles

ENVIRONMENTS, CLASSES, PER_CLASS = ("ink", "oil", "photo"), ("cat", "dog"), 12
SMALL = {"featurizer": "small_cnn", "input_size": 32, "batch_size": 4, "lr": 1e-3}


@pytest.fixture(scope="session")
def album(tmp_path_factory):
    """Folder of three environments of two classes of twelve emoji, as PNG, JPEG, RGBA and 16 bits."""
    root = tmp_path_factory.mktemp("album")
    emoji = EmojiStyles(None, [], {})
    for number, environment in enumerate(ENVIRONMENTS):
        images, targets = emoji.datasets[number].images, emoji.datasets[number].targets
        for label, name in enumerate(CLASSES):
            folder = root / environment / name
            folder.mkdir(parents=True)
            # Numbers 4 and 1: smiley and animal_nature, which a network tells apart soon.
            own = images[targets == (4, 1)[label]][:PER_CLASS]
            for i, pixels in enumerate((255 - own).permute(0, 2, 3, 1).contiguous().numpy()):
                picture = Image.fromarray(pixels).resize((64 + i, 64))
                if i % 4 == 1:
                    picture.save(folder / f"{i}.jpg")
                elif i % 4 == 2:
                    alpha = picture.convert("L").point(lambda value: 255 - value // 2)
                    picture.putalpha(alpha)
                    picture.save(folder / f"{i}.png")
                elif i % 4 == 3:
                    Image.fromarray(pixels[..., 0].astype("uint16") * 257).save(folder / f"{i}.png")
                else:
                    picture.save(folder / f"{i}.png")
    return root


Train = Callable[..., Path]


@pytest.fixture(scope="session")
def train(album, tmp_path_factory) -> Train:
    """`train(name, **settings)`: directory of a finished run of a few steps; `hparams` are added to SMALL."""

    def run(name="run", hparams=None, **settings):
        path = tmp_path_factory.mktemp(name) / "run"
        own = {"dataset": str(album), "test_envs": [1], "steps": 8, "checkpoint_freq": 3} | settings
        own["hparams"] = SMALL | (hparams or {})
        domainbed.train(**own, output_dir=str(path))
        return path

    return run


@pytest.fixture(scope="session")
def plain_run(train):
    """A finished run of ERM on the album, with "oil" as its target."""
    return train("plain")


@pytest.fixture
def recorded():
    """`recorded(run, target, *parts)`: number of correct images of the target by the run's last record."""

    def count(run, target, *parts):
        last = json.loads((run / "results.jsonl").read_text(encoding="utf-8").splitlines()[-1])
        parts = parts or [name for name in ("in", "out", "test") if f"env{target}_{name}_acc" in last]
        sizes = last["sizes"]
        return sum(last[f"env{target}_{part}_acc"] * sizes[f"env{target}_{part}"] for part in parts)

    return count


@pytest.fixture
def counted():
    """`counted(process)`: group -> (correct, images), as the script printed it."""

    def read(process):
        assert process.returncode == 0, process.stderr
        found = re.findall(
            r"^accuracy(?: on (.*))?: .* \(([\d,]+) of ([\d,]+) images\)$", process.stdout, re.M
        )
        return {group: (int(a.replace(",", "")), int(b.replace(",", ""))) for group, a, b in found}

    return read

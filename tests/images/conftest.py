"""Images with many colours, files of them, and a cache that is observed."""

import os
import time
import traceback
import warnings

import numpy as np
import pytest
from PIL import Image

from domainbed.datasets.emoji_styles import EmojiStyles
from domainbed.datasets.image_files import ImageFiles
from domainbed.datasets.image_transforms import PlainTransform
from domainbed.images.cache import cached_images


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


class Counted(ImageFiles):
    """Writes the index of each decoded image to `log`, and waits `pause` seconds before the last one."""

    pause = 0.0

    def __init__(self, samples, transform, log):
        super().__init__(samples, transform)
        self.log = log
        log.touch()

    def image(self, index):
        with self.log.open("a") as log:
            log.write(f"{index}\n")
        if index == len(self) - 1:
            time.sleep(self.pause)
        return super().image(index)

    @property
    def logged(self):
        """Indices in `log`, sorted."""
        return sorted(map(int, self.log.read_text().split()))


@pytest.fixture
def count_decoded():
    """`count_decoded(samples, log)`: image files that write what they decode to `log`."""
    return lambda samples, log: Counted(samples, PlainTransform({"input_size": 16}), log)


@pytest.fixture
def environment(write_files, count_decoded, tmp_path):
    """Six such image files."""
    return count_decoded(write_files([(20, 20)] * 6), tmp_path / "log")


@pytest.fixture
def cache():
    """`cache(environment, folder, transform=None)`: the cached images of an environment."""

    def open_cache(environment, folder, transform=None):
        return cached_images(
            folder, "a name", environment, environment.paths(), transform or environment.transform
        )

    return open_cache


@pytest.fixture
def assert_right():
    """`assert_right(images, environment)`: the cached pixels are those that the files give."""

    def check(images, environment):
        for i in range(len(environment)):
            expected = environment.transform.cached_pixels(ImageFiles.image(environment, i))
            assert np.array_equal(images[i].numpy(), expected), i

    return check


@pytest.fixture
def in_a_fork():
    """`in_a_fork(work)`: process id of a fork that calls `work`; its status is 1 if that raises."""

    def start(work):
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", DeprecationWarning)  # Python 3.12: idle threads of libraries
            number = os.fork()
        if number == 0:
            status = 1
            try:
                work()
                status = 0
            except BaseException:
                traceback.print_exc()
            finally:
                os._exit(status)
        return number

    return start

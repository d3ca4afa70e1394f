"""The cache of decoded images: what hashes and checks cost while it is made, and how fast it opens.

    python benchmarks/image_cache.py [--images FOLDER]

Makes the cache of a few hundred JPEG files of 227x227 pixels (enlarged emoji with noise, or files of FOLDER)
in three ways: without any hash or check; as release 0.1.0 did, with a BLAKE2b of each image's pixels; and as
runs do now, with hashes of files, checksums of pixels and the search for images of one colour. Then it opens
a cache of 100,000 tiny images. Goals: no more time than release 0.1.0, at most 1.05 times that without any
check, and less than a second to open.
"""

from __future__ import annotations

import argparse
import contextlib
import itertools
import shutil
import tempfile
import time
from hashlib import blake2b
from pathlib import Path
from statistics import median
from unittest import mock

import numpy as np
import torch
from pictures import pictures_in
from PIL import Image
from timing import interleaved, print_environment, report

from domainbed.datasets import hashes, image_files
from domainbed.datasets.emoji_styles import EmojiStyles
from domainbed.datasets.image_files import ImageFiles
from domainbed.datasets.image_transforms import AugmentingTransform, PlainTransform
from domainbed.images import building
from domainbed.images.cache import cached_images

COUNT, ROUNDS, MANY = 256, 25, 100_000


def write_pictures(folder):
    """JPEG files of 227x227 pixels, about 20 kB each; their paths."""
    emoji, paths = EmojiStyles(None, [], {}), []
    for number in range(COUNT):
        darkness = emoji[number % 4].images[number]
        picture = Image.fromarray(255 - darkness.permute(1, 2, 0).contiguous().numpy())
        pixels = np.asarray(picture.resize((227, 227), Image.Resampling.BICUBIC), dtype=float)
        noise = np.random.default_rng(number).normal(0, 6, pixels.shape)
        paths.append(str(folder / f"{number}.jpg"))
        Image.fromarray(np.clip(pixels + noise, 0, 255).astype(np.uint8)).save(paths[-1], quality=85)
    return paths


def unchecked():
    """A context in which nothing is hashed or checked."""
    return replaced_checks(lambda pixels, finding: (0, finding))


def as_first_release():
    """A context with the only check of release 0.1.0."""
    return replaced_checks(lambda pixels, finding: (blake2b(pixels, digest_size=8).digest()[0], finding))


def replaced_checks(digest_and_finding):
    """A context with this check of an image, and no other."""
    nothing = bytes(hashes.CONTENT_BYTES)
    stack = contextlib.ExitStack()
    for module, name, value in (
        (image_files, "content_hash", lambda data: nothing),
        (building, "digest_and_finding", digest_and_finding),
        (building, "image_digest", lambda pixels: 0),
    ):
        stack.enter_context(mock.patch.object(module, name, value))
    return stack


def maker(paths, transform, folder, context):
    """A function that makes the cache of the files in a new folder."""
    environment, numbers = ImageFiles([(path, 0) for path in paths], transform), itertools.count()

    def make():
        with context():
            building.build(folder / f"{next(numbers)}.images", "", environment, paths, transform)

    return make


def time_to_open(folder):
    """Median of seconds to open the cache of `MANY` images that a run has made."""
    first = folder / "first.png"
    Image.fromarray(np.arange(192, dtype=np.uint8).reshape(8, 8, 3)).save(first)
    paths = [str(folder / f"environment/class/{number:06}.png") for number in range(MANY)]
    Path(paths[0]).parent.mkdir(parents=True)
    for path in paths:
        shutil.copyfile(first, path)
    transform = PlainTransform({"input_size": 8})
    environment, seconds = ImageFiles([(path, 0) for path in paths], transform), []
    for _ in range(6):
        began = time.perf_counter()
        images = cached_images(folder / "cache", "many", environment, paths, transform)
        seconds.append(time.perf_counter() - began)
        assert images[MANY - 1].shape == (3, 8, 8)
    return seconds[0], median(seconds[1:])


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--images", type=Path, help="folder of images to use instead of emoji")
    args = parser.parse_args()
    torch.set_num_threads(1)
    print_environment()
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        (folder / "made").mkdir()
        if args.images:
            paths = pictures_in(args.images, COUNT)
        else:
            paths = write_pictures(folder)
        for title, transform in (("sources", AugmentingTransform({})), ("target", PlainTransform({}))):
            ways = {
                "unchecked": maker(paths, transform, folder / "made", unchecked),
                "release 0.1.0": maker(paths, transform, folder / "made", as_first_release),
                "hashed and checked": maker(paths, transform, folder / "made", contextlib.nullcontext),
            }
            times = interleaved(ways, ROUNDS, warmup=2)
            units = dict.fromkeys(ways, len(paths))
            report(f"Making the cache of {title}", times, "unchecked", units, "images")
        made, opened = time_to_open(folder)
        print(f"\n### Opening\n\n{MANY:,} images: made in {made:.1f} s, opened in {opened:.2f} s")


if __name__ == "__main__":
    main()

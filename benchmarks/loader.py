"""Images per second on one core: decoded images from the cache against reading file by file.

    python benchmarks/loader.py [--images FOLDER]

Makes minibatches of 32 inputs of 3x224x224 in both ways, with DomainBed's augmentation and without, from a
few hundred files: of FOLDER, drawn at random, or JPEG files of 227x227 pixels (enlarged emoji) that it
writes. The rival is what DomainBed and most training scripts do: PIL decodes a file, torchvision transforms
the image, ToTensor and Normalize make the input. Goals: 3 times as many images with augmentation, 8 times
without.
"""

from __future__ import annotations

import argparse
import os
import tempfile
from pathlib import Path

import numpy as np
import torch
from pictures import pictures_in
from PIL import Image
from timing import interleaved, print_environment, report
from torchvision import transforms

from domainbed.datasets.emoji_styles import EmojiStyles
from domainbed.datasets.image_files import ImageFiles
from domainbed.datasets.image_transforms import AugmentingTransform, PlainTransform
from domainbed.datasets.splitting import SplitDataset
from domainbed.images.prepared import ImageStore, PreparedImages
from domainbed.training.minibatches import load_minibatch
from domainbed.training.train_command import keep_freed_memory

COUNT, BATCH, ROUNDS = 256, 32, 25
NORMALISED = [transforms.ToTensor(), transforms.Normalize([0.485, 0.456, 0.406], [0.229, 0.224, 0.225])]
PLAIN = transforms.Compose([transforms.Resize((224, 224)), *NORMALISED])
AUGMENTED = transforms.Compose(
    [
        transforms.RandomResizedCrop(224, scale=(0.7, 1.0)),
        transforms.RandomHorizontalFlip(),
        transforms.ColorJitter(0.3, 0.3, 0.3, 0.3),
        transforms.RandomGrayscale(),
        *NORMALISED,
    ]
)


def write_pictures(folder):
    """JPEG files of 227x227 pixels; their paths."""
    paths = []
    emoji = EmojiStyles(None, [], {})
    for number in range(COUNT):
        darkness = emoji[number % 4].images[number]
        picture = Image.fromarray(255 - darkness.permute(1, 2, 0).contiguous().numpy())
        paths.append(str(folder / f"{number}.jpg"))
        picture.resize((227, 227), Image.Resampling.BICUBIC).save(paths[-1], quality=90)
    return paths


def file_by_file(paths, transform):
    """The textbook's minibatches."""
    rng = np.random.default_rng(0)

    def minibatch():
        images = []
        for index in rng.integers(len(paths), size=BATCH):
            with Image.open(paths[index]) as image:
                images.append(transform(image.convert("RGB")))
        torch.stack(images)

    return minibatch


def from_cache(paths, transform, store):
    """This project's minibatches, as training makes them."""
    files = ImageFiles([(path, 0) for path in paths], transform)
    part = SplitDataset(PreparedImages("benchmark", files, store), list(range(len(paths))))
    rng, step = np.random.default_rng(0), iter(range(10**9))
    return lambda: load_minibatch(part, rng.integers(len(paths), size=BATCH), (0, next(step)))


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--images", type=Path, help="folder of images to use instead of enlarged emoji")
    args = parser.parse_args()
    keep_freed_memory()
    core = min(os.sched_getaffinity(0))
    os.sched_setaffinity(0, {core})
    torch.set_num_threads(1)
    print_environment()
    with tempfile.TemporaryDirectory() as folder:
        paths = pictures_in(args.images, COUNT) if args.images else write_pictures(Path(folder))
        store = ImageStore(Path(folder) / "cache", torch.device("cpu"))
        for title, rival, transform in (
            ("with augmentation", AUGMENTED, AugmentingTransform({})),
            ("without augmentation", PLAIN, PlainTransform({})),
        ):
            ways = {"file by file": file_by_file(paths, rival), "cached": from_cache(paths, transform, store)}
            times = interleaved(ways, ROUNDS, warmup=3)
            found = report(f"Loader, {title}", times, "file by file", dict.fromkeys(ways, BATCH), "images")
            print(f"\ncached: {1 / found['cached']:.2f} times as many images/s")


if __name__ == "__main__":
    main()

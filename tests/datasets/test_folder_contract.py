"""Generated trees: each file of a user's folder is one image, or is skipped for one reason."""

import io
import os
from collections import Counter
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from domainbed.datasets import get_dataset_class
from domainbed.datasets.contract import build, identify_contents
from domainbed.datasets.image_checks import check_images
from domainbed.datasets.image_decoding import Finding
from domainbed.datasets.reading_rules import count_by_reason

HPARAMS = {"data_augmentation": False, "input_size": 16}
FORMAT_OF = {
    **dict.fromkeys((".jpg", ".JPEG", ".jpe", ".jfif", ".JFIF", ""), "JPEG"),
    **dict.fromkeys((".png", ".PNG"), "PNG"),
    **dict.fromkeys((".jp2", ".j2k"), "JPEG2000"),
    ".gif": "GIF",
    ".webp": "WEBP",
    ".bmp": "BMP",
    ".tif": "TIFF",
    ".avif": "AVIF",
    ".ppm": "PPM",
}
FINDINGS = (Finding.SCALED, Finding.TRANSPARENT, Finding.CONSTANT, Finding.TRUNCATED)
NAMES = ["ink", "Wood", "z 1", "été", "日本", "a.b", "-x", "100%"]


def encoded(number, image_format):
    """Bytes of a picture of 9x8 pixels; each number gives another one."""
    pixels = np.random.default_rng(number).integers(0, 256, (8, 9, 3), dtype=np.uint8)
    file = io.BytesIO()
    Image.fromarray(pixels).save(file, image_format)
    return file.getvalue()


class Tree:
    """A random tree `root/environment/class/...`, and what should be read of it.

    Attributes: images (paths), skipped (reason -> number of files), counts (environment -> class -> images),
        findings (finding -> number of images), copies (their number).
    """

    def __init__(self, root, seed):
        self.root, self.rng = root, np.random.default_rng(seed)
        self.images, self.skipped, self.written, self.findings = set(), Counter(), 0, Counter()
        self.copies = 0
        self.elsewhere = root.with_name(f"{root.name} elsewhere")
        environments = self.rng.permutation(NAMES)[: self.rng.integers(1, 4)].tolist()
        classes = self.rng.permutation(NAMES)[: self.rng.integers(1, 4)].tolist()
        self.counts = {}
        for environment in environments:
            for name in classes:
                before = len(self.images)
                folder = root / environment / name
                folder.mkdir(parents=True)
                self.image(folder)
                for _ in range(self.rng.integers(0, 7)):
                    self.anything(folder)
                self.counts.setdefault(environment, {})[name] = len(self.images) - before
            if self.rng.random() < 0.5:
                self.other(root / environment)
        if self.rng.random() < 0.5:
            self.hidden_folder(root)
            self.tool_folder(root)

    def anything(self, folder):
        kinds = (self.image, self.image, self.other, self.hidden, self.hidden_folder, self.tool_folder)
        kinds += (self.link, self.loop, self.special, self.below, self.linked_folder, self.empty)
        kinds += (self.copy, self.deep, self.transparent, self.constant, self.truncated)
        self.rng.choice(np.array(kinds, dtype=object))(folder)

    def name(self, suffix=""):
        self.written += 1
        return f"{self.rng.choice(['x', 'Ü', 'a b', '猫'])}{self.written}{suffix}"

    def image(self, folder):
        suffix = self.rng.choice(list(FORMAT_OF))
        path = folder / self.name(suffix)
        path.write_bytes(encoded(self.written, FORMAT_OF[suffix]))
        self.images.add(str(path))
        return path

    def found(self, finding, path):
        self.images.add(str(path))
        self.findings[finding] += 1

    def copy(self, folder):
        image = self.image(folder)
        for _ in range(self.rng.integers(1, 3)):
            path = folder / self.name(image.suffix)
            path.write_bytes(image.read_bytes())
            self.images.add(str(path))
            self.copies += 1

    def deep(self, folder):
        pixels = self.rng.integers(0, 65536, (5, 5), dtype=np.uint16)
        path = folder / self.name(self.rng.choice([".png", ".tif", ".pgm"]))
        Image.fromarray(pixels).save(path)
        self.found(Finding.SCALED, path)

    def transparent(self, folder):
        path = folder / self.name(self.rng.choice([".png", ".webp"]))
        Image.fromarray(self.rng.integers(0, 255, (5, 5, 4), dtype=np.uint8)).save(path, lossless=True)
        self.found(Finding.TRANSPARENT, path)

    def constant(self, folder):
        path = folder / self.name(".bmp")
        Image.new("RGB", (5, 5), (self.written, 0, 0)).save(path)
        self.found(Finding.CONSTANT, path)

    def truncated(self, folder):
        path = folder / self.name(self.rng.choice([".png", ".jpg"]))
        Image.fromarray(self.rng.integers(0, 256, (60, 60, 3), dtype=np.uint8)).save(path)
        path.write_bytes(path.read_bytes()[: path.stat().st_size * 2 // 3])
        self.found(Finding.TRUNCATED, path)

    def other(self, folder):
        path = folder / self.name(self.rng.choice([".txt", ".svg", ".json", ""]))
        path.write_bytes(self.rng.choice([b"", b"P1 is a plan", b"BM", b"<svg/>"]))
        self.skipped["other_file"] += 1

    def hidden(self, folder):
        (folder / f".{self.name('.png')}").write_bytes(encoded(0, "PNG"))
        self.skipped["hidden"] += 1

    def hidden_folder(self, folder):
        self._unread(folder / f".{self.name()}", "hidden")

    def tool_folder(self, folder):
        name = self.rng.choice(["@eaDir", "__MACOSX", ".thumbnails", ".ipynb_checkpoints"])
        if not (folder / name).exists():
            self._unread(folder / name, "hidden" if name.startswith(".") else "tool_folder")

    def _unread(self, folder, reason):
        for below in (folder, folder / "x"):
            below.mkdir()
            for i in range(self.rng.integers(0, 3)):
                (below / f"{i}.png").write_bytes(encoded(0, "PNG"))
                self.skipped[reason] += 1

    def link(self, folder):
        inside = [path for path in map(Path, sorted(self.images)) if folder in path.parents]
        image = self.rng.choice(np.array([path for path in inside if not path.parent.is_symlink()]))
        path = folder / self.name(image.suffix)
        if self.rng.random() < 0.5:
            path.symlink_to(image)
        else:
            path.hardlink_to(image)
            # Both are as real: the first path is read.
            if (str(folder), path.name) < (str(image.parent), image.name):
                self.images = self.images - {str(image)} | {str(path)}
        self.skipped["same_file"] += 1

    def loop(self, folder):
        (folder / self.name()).symlink_to(self.rng.choice([".", "..", "../..", str(self.root)]))
        self.skipped["folder_again"] += 1

    def special(self, folder):
        os.mkfifo(folder / self.name(".png"))
        self.skipped["special"] += 1

    def below(self, folder):
        inner = folder / self.name()
        inner.mkdir()
        self.image(inner)
        if self.rng.random() < 0.3:
            self.loop(inner)

    def linked_folder(self, folder):
        outside = self.elsewhere / self.name()
        outside.mkdir(parents=True)
        image, path = self.image(outside), folder / self.name()
        path.symlink_to(outside)
        self.images = self.images - {str(image)} | {str(path / image.name)}

    def empty(self, folder):
        (folder / self.name()).mkdir()


def places(root):
    """Paths of all files below `root`, without following links."""
    return {f"{place}/{name}" for place, _, names in os.walk(root) for name in names}


def check_contract(root, seed):
    tree = Tree(root / str(seed), seed)
    dataset = build(get_dataset_class(str(tree.root)), None, [0], HPARAMS)
    images = [path for environment in dataset.datasets for path in environment.paths()]
    assert len(set(images)) == len(images)
    assert set(images) == tree.images
    assert dataset.counts() == {
        name: dict(sorted(counts.items())) for name, counts in sorted(tree.counts.items())
    }
    assert count_by_reason(dataset.skipped) == dataset.summary["skipped"] == +tree.skipped
    check_images(dataset)
    identify_contents(dataset)
    assert len(dataset.summary["contents"]) == 16
    assert dataset.summary["copies"] == {"images": tree.copies, "other_class": 0}
    findings = np.concatenate(dataset.image_findings)
    assert {each: int((findings & each > 0).sum()) for each in FINDINGS} == {
        each: tree.findings[each] for each in FINDINGS
    }
    skipped = [each.path for each in dataset.skipped]
    for path in places(tree.root):
        reasons = [each for each in skipped if path == each or path.startswith(f"{each}/")]
        assert (path in images) + len(reasons) == 1, path


@pytest.mark.parametrize("seed", range(30))
def test_each_file_of_a_tree_is_one_image_or_skipped_for_one_reason(seed, tmp_path):
    check_contract(tmp_path, seed)


@pytest.mark.slow
@pytest.mark.parametrize("first", range(30, 530, 50))
def test_each_file_of_many_trees_is_one_image_or_skipped_for_one_reason(first, tmp_path):
    for seed in range(first, first + 50):
        check_contract(tmp_path, seed)

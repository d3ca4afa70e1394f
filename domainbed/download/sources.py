"""Sources of the known datasets. Unknown facts are left out, and none was compared with a real download.

Addresses are upstream's. Those of WILDS, its sizes and licences are from the package wilds 2.0.0, and MNIST's
checksums from torchvision. Other numbers and licences are from the literature; docs/datasets.md lists them.
If a number is wrong, a download is refused unless the user passes `--accept`.
"""

from __future__ import annotations

from domainbed.datasets.domain_folders import PACS, SVIRO, VLCS, DomainNet, OfficeHome, TerraIncognita
from domainbed.datasets.mnist import TEST_SOURCE
from domainbed.datasets.spawrious import IMAGES_PER_CLASS
from domainbed.datasets.wilds import WILDSCamelyon, WILDSFMoW
from domainbed.download import SOURCES
from domainbed.download.arrange import DUPLICATES, terra_incognita, wilds_release, without_duplicates
from domainbed.download.inventory import camelyon17, fmow, idx_files
from domainbed.download.source import File, Source

_MNIST = "https://ossci-datasets.s3.amazonaws.com/mnist"
_DOMAIN_NET = "http://csr.bu.edu/ftp/visda/2019/multi-source"
_TERRA = "https://storage.googleapis.com/public-datasets-lila/caltechcameratraps"
_WILDS = "https://worksheets.codalab.org/rest/bundles"
_FAIR_USE = "copyrighted pictures, made available for academic research (fair use notice of the authors)"


def _by_class(environments: dict[str, dict[str, int]]) -> dict[str, int]:
    """Numbers of images by environment, and by environment and class."""
    sums = {name: sum(classes.values()) for name, classes in environments.items()}
    return sums | {
        f"{name}/{each}": count for name, classes in environments.items() for each, count in classes.items()
    }


def _add(source: Source) -> None:
    SOURCES[source.name] = source


_MNIST_FILES = tuple(
    File(f"{name}.gz", f"{_MNIST}/{name}.gz", size, f"md5:{checksum}")
    for name, size, checksum in (
        ("train-images-idx3-ubyte", 9_912_422, "f68b3c2dcbeaaa9fbdd348bbdeb94873"),
        ("train-labels-idx1-ubyte", 28_881, "d53e105ee54ea40749a09fcbcd1e9432"),
        ("t10k-images-idx3-ubyte", 1_648_877, "9fb629c4189551a2d022fa330f9573f3"),
        ("t10k-labels-idx1-ubyte", 4_542, "ec29112dd5afa0611ce80d1b7f02629c"),
    )
)
_MNIST_COUNTS = {
    "train-images-idx3-ubyte": 60_000,
    "train-labels-idx1-ubyte": 60_000,
    "t10k-images-idx3-ubyte": 10_000,
    "t10k-labels-idx1-ubyte": 10_000,
}
_add(
    Source(
        "MNIST",
        _MNIST_FILES,
        folder="MNIST/raw",
        holds=tuple(_MNIST_COUNTS),
        serves=("ColoredMNIST", "RotatedMNIST", "ColoredMNIST_IRM"),
        counts=_MNIST_COUNTS,
        inventory=idx_files,
    )
)
_add(
    Source(
        TEST_SOURCE,
        _MNIST_FILES[2:],
        folder="MNIST/raw",
        holds=tuple(_MNIST_COUNTS)[2:],
        serves=("ColoredMNIST", "RotatedMNIST", "ColoredMNIST_IRM"),
        counts={name: count for name, count in _MNIST_COUNTS.items() if name.startswith("t10k")},
        note='for runs with the hyper-parameter "mnist": "test"',
        part_of="MNIST",
        inventory=idx_files,
    )
)
_add(
    Source(
        "VLCS",
        (File("VLCS.tar.gz", "gdown:1skwblH1_okBwxWxmRsp9_qi15hyPpxg8"),),
        folder=VLCS.FOLDER,
        holds=tuple(VLCS.FOLDERS.values()),
        counts=_by_class(
            {
                "Caltech101": {"bird": 237, "car": 123, "chair": 118, "dog": 67, "person": 870},
                "LabelMe": {"bird": 80, "car": 1209, "chair": 89, "dog": 43, "person": 1235},
                "SUN09": {"bird": 21, "car": 933, "chair": 1036, "dog": 31, "person": 1261},
                "VOC2007": {"bird": 330, "car": 699, "chair": 428, "dog": 420, "person": 1499},
            }
        ),
        classes=5,
    )
)
_PACS_CLASSES = ("dog", "elephant", "giraffe", "guitar", "horse", "house", "person")
_add(
    Source(
        "PACS",
        (File("PACS.zip", "gdown:1JFr8f805nMUelQWWmfnJR3y4_SYoN5Pd"),),
        folder=PACS.FOLDER,
        holds=tuple(PACS.FOLDERS.values()),
        counts=_by_class(
            {
                name: dict(zip(_PACS_CLASSES, counts, strict=True))
                for name, counts in {
                    "art_painting": (379, 255, 285, 184, 201, 295, 449),
                    "cartoon": (389, 457, 346, 135, 324, 288, 405),
                    "photo": (189, 202, 182, 186, 199, 280, 432),
                    "sketch": (772, 740, 753, 608, 816, 80, 160),
                }.items()
            }
        ),
        classes=7,
    )
)
_add(
    Source(
        "OfficeHome",
        (File("office_home.zip", "gdown:1uY0pj7oFsjMxRwaD3Sxy0jgel0fsYXLC"),),
        folder=OfficeHome.FOLDER,
        holds=tuple(OfficeHome.FOLDERS.values()),
        licence=_FAIR_USE,
        homepage="https://www.hemanthdv.org/officeHomeDataset.html",
        counts={"Art": 2427, "Clipart": 4365, "Product": 4439, "Real World": 4357},
        classes=65,
    )
)
_add(
    Source(
        "TerraIncognita",
        (
            File("eccv_18_all_images_sm.tar.gz", f"{_TERRA}/eccv_18_all_images_sm.tar.gz"),
            File("eccv_18_annotations.tar.gz", f"{_TERRA}/eccv_18_annotations.tar.gz"),
        ),
        folder=TerraIncognita.FOLDER,
        holds=tuple(TerraIncognita.FOLDERS.values()),
        licence="Community Data License Agreement, permissive variant",
        homepage="https://lila.science/datasets/caltech-camera-traps",
        classes=10,
        note="papers report different totals, so none is expected here",
        arrange=terra_incognita,
    )
)
_add(
    Source(
        "DomainNet",
        (
            File("clipart.zip", f"{_DOMAIN_NET}/groundtruth/clipart.zip"),
            File("infograph.zip", f"{_DOMAIN_NET}/infograph.zip"),
            File("painting.zip", f"{_DOMAIN_NET}/groundtruth/painting.zip"),
            File("quickdraw.zip", f"{_DOMAIN_NET}/quickdraw.zip"),
            File("real.zip", f"{_DOMAIN_NET}/real.zip"),
            File("sketch.zip", f"{_DOMAIN_NET}/sketch.zip"),
            File(
                DUPLICATES,
                f"https://raw.githubusercontent.com/facebookresearch/DomainBed/HEAD/domainbed/misc/{DUPLICATES}",
            ),
        ),
        folder=DomainNet.FOLDER,
        holds=tuple(DomainNet.FOLDERS.values()),
        licence=_FAIR_USE,
        homepage="http://ai.bu.edu/M3SDA/",
        counts={
            "clipart": 48_129,
            "infograph": 51_605,
            "painting": 72_266,
            "quickdraw": 172_500,
            "real": 172_947,
            "sketch": 69_128,
        },
        classes=345,
        note="9,431 duplicates are left out, as upstream does",
        arrange=without_duplicates,
    )
)
_add(
    Source(
        "SVIRO",
        (File("sviro_grayscale_rectangle_classification.zip", "https://sviro.kl.dfki.de/?wpdmdl=1731"),),
        folder=SVIRO.FOLDER,
        holds=tuple(SVIRO.FOLDERS.values()),
        licence="CC BY-NC-SA 4.0",
        homepage="https://sviro.kl.dfki.de",
    )
)
_add(
    Source(
        "WILDSCamelyon",
        (
            File(
                "camelyon17_v1.0.tar.gz",
                f"{_WILDS}/0xe45e15f39fb54e9d9e919556af67aabe/contents/blob/",
                10_658_709_504,
            ),
        ),
        folder=WILDSCamelyon.FOLDER,
        holds=("RELEASE_v1.0.txt", "metadata.csv", "patches"),
        licence="CC0",
        homepage="https://wilds.stanford.edu/datasets",
        counts={
            "hospital_0": 59_436,
            "hospital_1": 34_904,
            "hospital_2": 85_054,
            "hospital_3": 129_838,
            "hospital_4": 146_722,
        },
        arrange=wilds_release("RELEASE_v1.0.txt"),
        inventory=camelyon17,
    )
)
_add(
    Source(
        "WILDSFMoW",
        (
            File(
                "fmow_v1.1.tar.gz",
                f"{_WILDS}/0xaec91eb7c9d548ebb15e1b5e60f966ab/contents/blob/",
                53_893_324_800,
            ),
        ),
        folder=WILDSFMoW.FOLDER,
        holds=("RELEASE_v1.1.txt", "rgb_metadata.csv", "country_code_mapping.csv", "images"),
        licence="FMoW Challenge Public License",
        homepage="https://github.com/fMoW/dataset",
        arrange=wilds_release("RELEASE_v1.1.txt"),
        inventory=fmow,
    )
)
_add(
    Source(
        "Spawrious",
        (
            File(
                "spawrious.tar.gz",
                "https://www.dropbox.com/s/e40j553480h3f3s/spawrious224.tar.gz?dl=1",
            ),
        ),
        folder=".",
        holds=("0", "1"),
        serves=tuple(
            f"Spawrious{kind}_{level}" for kind in ("O2O", "M2M") for level in ("easy", "medium", "hard")
        ),
        homepage="https://github.com/aengusl/spawrious",
        counts={
            f"{split}/{place}/{breed}": IMAGES_PER_CLASS
            for split in (0, 1)
            for place in ("beach", "desert", "dirt", "jungle", "mountain", "snow")
            for breed in ("bulldog", "corgi", "dachshund", "labrador")
        },
    )
)

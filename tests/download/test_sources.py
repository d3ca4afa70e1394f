"""Declared sources: consistency with datasets, packages, papers and the documentation."""

import re
import shlex
from pathlib import Path

import pytest

from domainbed.datasets import REGISTRY, get_dataset_class
from domainbed.datasets.wilds import _without_version_checks
from domainbed.download import SOURCES, source_of
from domainbed.download.source import File, Source
from domainbed.errors import UnknownName
from domainbed.scripts.download import main

DOCUMENT = Path(__file__).parents[2] / "docs/datasets.md"
TOTALS = {"VLCS": 10_729, "PACS": 9_991, "OfficeHome": 15_588, "DomainNet": 586_575}
KNOWN = (
    "MNIST",
    "VLCS",
    "PACS",
    "OfficeHome",
    "TerraIncognita",
    "DomainNet",
    "SVIRO",
    "WILDSCamelyon",
    "WILDSFMoW",
    "Spawrious",
)


def test_a_dataset_has_a_source_if_and_only_if_it_needs_data():
    for name in REGISTRY:
        if REGISTRY[name].__module__.startswith("domainbed.datasets."):
            cls = get_dataset_class(name)
            assert (source_of(name) is None) is (cls.missing(None) is None), name
            assert (source_of(name) is None) is not cls.DOWNLOADABLE, name


@pytest.mark.parametrize(("name", "total"), TOTALS.items())
def test_numbers_of_environments_add_up_to_the_papers_totals(name, total):
    source = SOURCES[name]
    assert sum(source.counts[environment] for environment in source.holds) == total
    for environment in source.holds:
        classes = [count for key, count in source.counts.items() if key.startswith(f"{environment}/")]
        assert not classes or (sum(classes), len(classes)) == (source.counts[environment], source.classes)


def test_numbers_of_camelyon_and_spawrious_add_up_to_the_papers_totals():
    assert sum(SOURCES["WILDSCamelyon"].counts.values()) == 455_954
    assert sum(SOURCES["Spawrious"].counts.values()) == 152_064


@pytest.mark.parametrize("name", KNOWN)
def test_sources_are_complete(name):
    source = SOURCES[name]
    assert source.files
    assert source.holds
    for file in source.files:
        assert re.match(r"https?://|gdown:[\w-]{20,}$", file.where)
        assert file.link().startswith("http")
        assert re.fullmatch(r"|md5:[0-9a-f]{32}", file.checksum)


def test_sources_of_wilds_equal_those_in_the_package():
    with _without_version_checks():
        from wilds.datasets.camelyon17_dataset import Camelyon17Dataset
        from wilds.datasets.fmow_dataset import FMoWDataset
    for name, declared in (
        ("WILDSCamelyon", Camelyon17Dataset._versions_dict["1.0"]),
        ("WILDSFMoW", FMoWDataset._versions_dict["1.1"]),
    ):
        (file,) = SOURCES[name].files
        assert (file.where, file.size) == (declared["download_url"], declared["compressed_size"])


def test_checksums_of_mnist_equal_those_in_torchvision():
    from torchvision.datasets import MNIST

    declared = {name: f"md5:{md5}" for name, md5 in MNIST.resources}
    assert {file.name: file.checksum for file in SOURCES["MNIST"].files} == declared
    for file in SOURCES["MNIST"].files:
        assert file.where in [mirror + file.name for mirror in MNIST.mirrors]


def test_missing_data_is_reported_with_a_command_that_downloads_it(tmp_path, capsys):
    pytest.importorskip("wilds")
    (tmp_path / "with a blank").mkdir()
    for root in (None, tmp_path / "nowhere", tmp_path / "with a blank"):
        for name in REGISTRY:
            source = source_of(name)
            if source is not None:
                missing = REGISTRY[name].missing(root and str(root))
                (command,) = re.findall(
                    r'; run "python -m domainbed.scripts.download (.*)" to download it$', missing
                )
                assert "\n" not in missing
                assert shlex.split(command) == ["--datasets", name, "--data_dir", str(root or "DATA")]
                assert main([*shlex.split(command), "--list"]) == 0
                assert capsys.readouterr().out.startswith(f"{source.name}: for ")


def test_missing_data_without_a_source_is_reported_without_a_command(tmp_path):
    class Ours(REGISTRY["PACS"]):
        FOLDER = "ours"

    assert Ours.missing(str(tmp_path)).startswith(f"Ours: {tmp_path / 'ours'} does not exist")
    assert "download" not in Ours.missing(str(tmp_path)) + Ours.missing(None)


def test_an_unknown_name_gets_a_suggestion():
    with pytest.raises(UnknownName, match="Dataset to download not found: RotatedMINST") as info:
        source_of("RotatedMINST")
    assert "RotatedMNIST" in info.value.__notes__[0]


def test_a_registered_source_is_found_by_its_name_and_its_datasets(registered):
    mine = registered(Source("Mine", (File("mine.zip", "hand:ask"),), "mine", ("a", "b"), ("Ours",)))
    assert source_of("Ours") is source_of("Mine") is mine


def test_the_example_in_the_documentation_declares_a_source():
    (example,) = re.findall(
        r"^```py\n(.*?)^```", DOCUMENT.read_text(encoding="utf-8"), re.DOTALL | re.MULTILINE
    )
    before = set(SOURCES)
    exec(example, {})
    (name,) = set(SOURCES) - before
    assert isinstance(SOURCES[name], Source)
    del SOURCES[name]

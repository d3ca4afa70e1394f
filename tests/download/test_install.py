"""Installation of datasets from a local server, and of known sources in their real layouts."""

import io
import json
import multiprocessing
import tarfile
from dataclasses import replace

import pytest

from domainbed.datasets import contract, get_dataset_class
from domainbed.datasets.domain_folders import DomainFolders
from domainbed.download import SOURCES
from domainbed.download.arrange import DUPLICATES
from domainbed.download.fetch import RetryPolicy
from domainbed.download.install import InstallOptions, install
from domainbed.download.source import File
from domainbed.errors import RunError, describe

OPTIONS = InstallOptions(RetryPolicy(timeout=5.0, tries=3, wait=0.01))
HPARAMS = {"data_augmentation": True, "input_size": 8}


def visible(folder):
    return sorted(path.name for path in folder.iterdir() if not path.name.startswith("."))


@pytest.mark.parametrize("name", ["tiny.zip", "tiny.tar.gz", "tiny.tar"])
def test_a_dataset_is_installed_from_its_archive(name, tiny, tree, pack, tmp_path):
    counts = {"ink": {"cat": 2, "dog": 1}, "oil": {"cat": 1, "dog": 2}}
    report = install(tiny(name, pack(name, tree(counts, "inside/"))), tmp_path / "data", OPTIONS)
    assert report.problems == {}
    assert visible(tmp_path / "data") == ["tiny"]
    dataset = get_dataset_class(str(tmp_path / "data/tiny"))(None, [0], HPARAMS)
    assert dataset.counts() == counts


def test_an_installed_dataset_is_verified_and_not_downloaded_again(tiny, server, tmp_path):
    source = tiny()
    install(source, tmp_path, OPTIONS)
    (tmp_path / "tiny.zip").write_bytes(b"left over")
    assert install(source, tmp_path, OPTIONS).compared_with_manifest
    assert len(server.paths["tiny.zip"].asked) == 1
    assert visible(tmp_path) == ["tiny"]
    next((tmp_path / "tiny/ink/cat").iterdir()).unlink()
    with pytest.raises(
        RunError, match=r"exists, but it differs from what was declared \(missing: ink/cat/0.png"
    ):
        install(source, tmp_path, OPTIONS)


def test_archives_are_kept_on_request(tiny, tmp_path):
    install(tiny(), tmp_path, replace(OPTIONS, keep_archives=True))
    assert visible(tmp_path) == ["tiny", "tiny.zip"]


def test_a_dataset_with_other_numbers_is_not_installed_unless_accepted(tiny, tmp_path):
    source = replace(tiny(), counts={"ink": 4})
    with pytest.raises(RunError, match=r"differs from what was declared \(wrong number: ink has 3, not 4\)"):
        install(source, tmp_path, OPTIONS)
    assert visible(tmp_path) == ["tiny.zip"]
    report = install(source, tmp_path, replace(OPTIONS, accept=True))
    assert report.problems
    assert visible(tmp_path) == ["tiny", "tiny.zip"]


def test_a_dataset_with_unreadable_images_is_not_installed(tiny, tree, pack, tmp_path):
    files = tree({"ink": {"cat": 2, "dog": 1}, "oil": {"cat": 1, "dog": 2}})
    source = tiny(content=pack("tiny.zip", files | {"oil/dog/1.png": b"no image"}))
    with pytest.raises(RunError, match=r"unreadable: oil/dog/1\.png"):
        install(source, tmp_path, OPTIONS)
    assert visible(tmp_path) == ["tiny.zip"]
    assert install(source, tmp_path, replace(OPTIONS, open_images=False)).problems == {}


def test_a_damaged_archive_that_was_downloaded_is_deleted(tiny, tree, pack, server, tmp_path):
    whole = pack("tiny.zip", tree({"ink": {"cat": 2, "dog": 1}, "oil": {"cat": 1, "dog": 2}}))
    source = tiny(content=whole[:200] + bytes([whole[200] ^ 1]) + whole[201:])
    with pytest.raises(RunError, match="is damaged") as info:
        install(source, tmp_path, OPTIONS)
    assert "The archive was deleted. Run the same command to download it again" in describe(info.value)
    assert visible(tmp_path) == []
    assert not list(tmp_path.glob("*unpacking"))
    server.paths["tiny.zip"].content = whole
    assert install(source, tmp_path, OPTIONS).problems == {}


def hostile_tar(name, kind=tarfile.REGTYPE):
    """A tar with a member called `name`: a file, or a link or a device for /etc/passwd."""
    packed = io.BytesIO()
    with tarfile.open(fileobj=packed, mode="w:gz") as archive:
        info = tarfile.TarInfo(name)
        info.type, info.linkname = kind, "/etc/passwd"
        archive.addfile(info)
    return packed.getvalue()


@pytest.mark.parametrize(
    ("name", "content", "message"),
    [
        ("x.tar.gz", lambda pack: hostile_tar("../../out"), "a member outside the target folder"),
        ("x.tar.gz", lambda pack: hostile_tar("/out"), "a member outside the target folder"),
        ("x.tar.gz", lambda pack: hostile_tar("ink", tarfile.SYMTYPE), "contains a link"),
        ("x.tar.gz", lambda pack: hostile_tar("ink/a.png", tarfile.LNKTYPE), "contains a link"),
        ("x.tar.gz", lambda pack: hostile_tar("ink/a.png", tarfile.FIFOTYPE), "contains a device"),
        (
            "x.tar.gz",
            lambda pack: pack("x.tar.gz", {"ink/a.png": bytes(9 << 20)}),
            "as a decompression bomb does",
        ),
        ("x.zip", lambda pack: pack("x.zip", {"../../out": b""}), "a member outside the target folder"),
        ("x.zip", lambda pack: pack("x.zip", {"ink/a.png": bytes(9 << 20)}), "as a decompression bomb does"),
    ],
)
def test_a_hostile_archive_leaves_no_files(name, content, message, tiny, pack, tmp_path):
    with pytest.raises(RunError, match=message) as info:
        install(tiny(name, content(pack)), tmp_path / "in" / "data", OPTIONS)
    assert "fetch http://127.0.0.1" in describe(info.value)
    assert [path.name for path in (tmp_path / "in").iterdir()] == ["data"]
    assert [path.name for path in (tmp_path / "in" / "data").iterdir()] == [".Tiny.lock"]


def test_a_damaged_archive_of_the_user_is_not_deleted(tiny, tmp_path):
    source = tiny()
    (tmp_path / "tiny.zip").write_bytes(b"PK, almost")
    with pytest.raises(RunError, match="is damaged") as info:
        install(source, tmp_path, OPTIONS)
    assert "It existed before: delete it" in describe(info.value)
    assert visible(tmp_path) == ["tiny.zip"]


def test_files_left_by_a_killed_call_are_removed(tiny, tmp_path):
    (tmp_path / ".Tiny.unpacking/inside/ink").mkdir(parents=True)
    (tmp_path / ".Tiny.unpacking/inside/ink/stray.png").touch()
    report = install(tiny(), tmp_path, OPTIONS)
    assert report.problems == {}
    assert visible(tmp_path) == ["tiny"]


def test_concurrent_calls_download_once(tiny, server, tmp_path):
    source = tiny(cuts=(100,), stall=0.3)
    fork = multiprocessing.get_context("fork")
    both = [fork.Process(target=install, args=(source, tmp_path, OPTIONS)) for _ in range(2)]
    for process in both:
        process.start()
    for process in both:
        process.join()
    assert [process.exitcode for process in both] == [0, 0]
    assert server.paths["tiny.zip"].asked == [None, "bytes=100-"]


def test_an_error_names_a_folder_that_cannot_be_written(tiny, tmp_path):
    (tmp_path / "data").write_text("a file")
    with pytest.raises(RunError, match="Tiny cannot be installed in"):
        install(tiny(), tmp_path / "data", OPTIONS)


TWO = {"one": 1, "two": 1}


def real_layout(name, tree, pack, make_image):
    """Archives of a known source with few images, in the layout of the real archives."""
    source = SOURCES[name]
    folders = dict.fromkeys(source.holds, TWO)
    if name in ("VLCS", "PACS", "OfficeHome", "SVIRO"):
        inside = {"PACS": "kfold/", "OfficeHome": "OfficeHomeDataset_10072016/", "SVIRO": "SVIRO_DOMAINBED/"}
        return [tree(folders, inside.get(name, "VLCS/")) | {"readme.txt": b"read me"}]
    if name == "Spawrious":
        return [tree({f"{split}/beach": TWO for split in "01"}, "spawrious224/")]
    if name == "DomainNet":
        one = {"clipart": {"one": 2, "two": 1}}
        return [
            tree(one),
            *(tree({each: TWO}) for each in source.holds[1:]),
            b"clipart/one/1.png\nreal/none.png\n",
        ]
    if name == "TerraIncognita":
        return terra(make_image)
    columns = "index,patient,node,x_coord,y_coord,tumor,slide,center,split"
    if name == "WILDSCamelyon":
        rows = [f"{i},00{i},1,{i},2,0,0,{i},0" for i in range(5)]
        images = {
            f"patches/patient_00{i}_node_1/patch_patient_00{i}_node_1_x_{i}_y_2.png": make_image(i)
            for i in range(5)
        }
        return [images | {"metadata.csv": "\n".join([columns, *rows]).encode()}]
    table = "split,category,country_code,timestamp\ntrain,zoo,FRA,2014-01-01T00:00:00Z\n"
    return [
        {
            "rgb_metadata.csv": table.encode(),
            "country_code_mapping.csv": b"alpha-3,region\nFRA,Europe\n",
            "images/rgb_img_0.png": make_image(0),
        }
    ]


def terra(make_image):
    images = [
        {"id": f"i{place}", "file_name": f"i{place}.jpg", "location": place} for place in (38, 46, 100, 43)
    ]
    part = {
        "images": images,
        "annotations": [{"image_id": image["id"], "category_id": 5} for image in images],
        "categories": [{"id": 5, "name": "bobcat"}],
    }
    empty = {key: [] for key in part}
    lists = dict.fromkeys(("cis_test", "cis_val", "trans_test", "trans_val"), empty) | {"train": part}
    files = {f"eccv_18_all_images_sm/{image['file_name']}": make_image(0, "JPEG") for image in images}
    return [
        files,
        {
            f"eccv_18_annotation_files/{name}_annotations.json": json.dumps(content).encode()
            for name, content in lists.items()
        },
    ]


@pytest.mark.parametrize("name", [name for name in SOURCES if not name.startswith("MNIST")])
def test_datasets_read_what_their_known_sources_install(name, server, tree, pack, make_image, tmp_path):
    contents = real_layout(name, tree, pack, make_image)
    files = [
        File(
            file.name, server.serve(file.name, each if isinstance(each, bytes) else pack(file.name, each)).url
        )
        for file, each in zip(SOURCES[name].files, contents, strict=True)
    ]
    source = replace(SOURCES[name], files=tuple(files), counts={}, classes=None)
    report = install(source, tmp_path, OPTIONS)
    assert report.problems == {}
    assert visible(tmp_path) == sorted(source.holds if source.folder == "." else [source.folder])
    if name == "DomainNet":
        assert report.counts["clipart/one"] == 1  # the other image is in the list of duplicates
        assert not (tmp_path / "domain_net" / DUPLICATES).exists()
    for dataset in source.datasets:
        assert get_dataset_class(dataset).missing(str(tmp_path)) is None
        if issubclass(get_dataset_class(dataset), DomainFolders):
            built = contract.build(get_dataset_class(dataset), str(tmp_path), [0], HPARAMS)
            sizes = [sum(counts.values()) for counts in built.summary["counts"].values()]
            assert sizes == [report.counts[folder] for folder in built.FOLDERS.values()]
    wrong = replace(source, counts=SOURCES[name].counts, classes=SOURCES[name].classes)
    if wrong.counts:
        with pytest.raises(RunError, match="wrong number"):
            install(wrong, tmp_path, OPTIONS)


def test_datasets_read_the_installed_mnist_files(server, write_mnist, tmp_path):
    import gzip

    write_mnist(tmp_path / "made")
    made = tmp_path / "made/MNIST/raw"
    files = [
        File(file.name, server.serve(file.name, gzip.compress((made / file.name[:-3]).read_bytes())).url)
        for file in SOURCES["MNIST"].files
    ]
    source = replace(SOURCES["MNIST"], files=tuple(files), counts={})
    report = install(source, tmp_path / "data", OPTIONS)
    assert report.counts["train-images-idx3-ubyte"] == 60
    for name in source.datasets:
        assert get_dataset_class(name)(str(tmp_path / "data"), [0], {"grey": False, "copies": 1}).datasets
    # The same files serve all datasets, unpacked as by torchvision.
    assert visible(tmp_path / "data/MNIST/raw") == sorted(source.holds)


def test_mnists_test_set_alone_is_checked_by_the_official_sums_and_serves_runs_on_it(
    server, write_mnist, tmp_path
):
    import gzip

    write_mnist(tmp_path / "made")
    made = tmp_path / "made/MNIST/raw"
    declared = SOURCES["MNIST_test"]
    assert declared.files == SOURCES["MNIST"].files[2:]
    data = tmp_path / "data"
    data.mkdir()
    for file in declared.files:
        (data / file.name).write_bytes(gzip.compress((made / file.name[:-3]).read_bytes()))
    with pytest.raises(RunError, match=r"has the md5 checksum \w+, not 9fb629c4189551a2d022fa330f9573f3"):
        install(declared, data, OPTIONS)
    source = replace(declared, files=tuple(replace(file, checksum="") for file in declared.files), counts={})
    assert install(source, data, OPTIONS).problems == {}
    assert visible(data / "MNIST/raw") == sorted(declared.holds)
    for name in source.datasets:
        assert get_dataset_class(name)(str(data), [0], {"mnist": "test"}).datasets

"""Unpacking of valid, damaged and hostile archives."""

import bz2
import contextlib
import gzip
import io
import lzma
import os
import stat
import tarfile
import time
import tracemalloc
import zipfile

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from domainbed.download.unpack import DamagedArchive, Limits, unpack

FILES = {"a/b/one.txt": b"1" * 50, "a/two.bin": bytes(range(256)) * 20, "three": b""}
NOISE = os.urandom(3000)
LIMITS = Limits()
HIGH = Limits(ratio=1_000_000)
"""Limits that only headers exceed."""

KINDS = ("x.zip", "x.tar", "x.tar.gz", "x.tgz", "x.tar.bz2", "x.tar.xz")


def read(folder):
    return {
        path.relative_to(folder).as_posix(): path.read_bytes()
        for path in folder.rglob("*")
        if path.is_file() or path.is_symlink()
    }


def tar_of(*members):
    packed = io.BytesIO()
    with tarfile.open(fileobj=packed, mode="w:gz") as archive:
        for name, kind in members:
            info = tarfile.TarInfo(name)
            info.type, info.linkname = kind, "/etc/passwd"
            archive.addfile(info)
    return packed.getvalue()


def zip_of(name, content=b"x", mode=0):
    packed = io.BytesIO()
    with zipfile.ZipFile(packed, "w", zipfile.ZIP_DEFLATED) as archive:
        info = zipfile.ZipInfo(name)
        info.external_attr = mode << 16
        info.compress_type = zipfile.ZIP_DEFLATED
        archive.writestr(info, content)
    return packed.getvalue()


@pytest.fixture
def refuse(tmp_path):
    """`refuse(name, content, message)` asserts that unpacking fails, and writes only to the target folder."""

    def check(name, content, message, limits=LIMITS):
        archive, into = tmp_path / name, tmp_path / "into"
        archive.write_bytes(content)
        into.mkdir()
        with pytest.raises(DamagedArchive, match=message):
            unpack(archive, into, limits)
        assert sorted(path.name for path in tmp_path.iterdir()) == sorted(["into", name])
        return into

    return check


@pytest.mark.parametrize("name", KINDS)
def test_unpacked_files_equal_those_that_were_packed(name, pack, tmp_path):
    (tmp_path / name).write_bytes(pack(name, FILES))
    unpack(tmp_path / name, tmp_path / "into", LIMITS)
    assert read(tmp_path / "into") == FILES


def test_a_single_compressed_file_and_a_plain_file(tmp_path):
    (tmp_path / "images-idx3.gz").write_bytes(gzip.compress(b"pixels"))
    (tmp_path / "list.txt").write_bytes(b"lines")
    for name in ("images-idx3.gz", "list.txt"):
        unpack(tmp_path / name, tmp_path / "into", LIMITS)
    assert read(tmp_path / "into") == {"images-idx3": b"pixels", "list.txt": b"lines"}


@pytest.mark.parametrize("name", ["/tmp/out", "../out", "a/../../out", "a\\..\\out", "a\nb"])
def test_tar_members_outside_the_target_are_refused(name, refuse):
    assert not read(refuse("x.tar.gz", tar_of((name, tarfile.REGTYPE)), "outside the target folder"))


@pytest.mark.parametrize("name", ["/tmp/out", "../out", "a/../../out"])
def test_zip_members_outside_the_target_are_refused(name, refuse):
    assert not read(refuse("x.zip", zip_of(name), "outside the target folder"))


@pytest.mark.parametrize(
    ("kind", "called"),
    [
        (tarfile.SYMTYPE, "link"),
        (tarfile.LNKTYPE, "link"),
        (tarfile.CHRTYPE, "device"),
        (tarfile.FIFOTYPE, "device"),
    ],
)
def test_links_and_devices_in_a_tar_are_refused(kind, called, refuse):
    assert not read(refuse("x.tar.gz", tar_of(("a", kind)), f"contains a {called}"))


@pytest.mark.parametrize(("mode", "called"), [(stat.S_IFLNK, "link"), (stat.S_IFIFO, "device")])
def test_links_and_devices_in_a_zip_are_refused(mode, called, refuse):
    assert not read(refuse("x.zip", zip_of("a", b"/etc/passwd", mode | 0o777), f"contains a {called}"))


def test_a_repeated_member_is_refused(refuse):
    refuse("x.tar.gz", tar_of(("a", tarfile.REGTYPE), ("a", tarfile.REGTYPE)), "'a' twice")


def test_a_member_below_a_file_is_refused(refuse):
    refuse("x.tar.gz", tar_of(("a", tarfile.REGTYPE), ("a/b", tarfile.REGTYPE)), "'a/b' twice")


@pytest.mark.parametrize("name", ["x.zip", "x.tar.gz", "x.gz"])
def test_a_decompression_bomb_is_refused(name, pack, refuse):
    zeros = bytes(30 << 20)
    content = gzip.compress(zeros) if name == "x.gz" else pack(name, {"zeros": zeros})
    assert len(content) < 100_000
    into = refuse(name, content, "as a decompression bomb does")
    assert sum(len(data) for data in read(into).values()) <= 100 * len(content)


def test_the_declared_size_limits_an_archive(pack, refuse):
    refuse("x.tar", pack("x.tar", FILES), "more than its declared limit", Limits(size=1000))


def test_the_number_of_members_is_limited(pack, refuse):
    into = refuse("x.tar", pack("x.tar", FILES), "more than 2 members, the limit", Limits(members=2))
    assert len(read(into)) == 2


@pytest.mark.parametrize("name", ["x.zip", "x.tar.gz", "x.tar.xz"])
@settings(max_examples=25, deadline=None)
@given(share=st.floats(0, 0.999))
def test_an_archive_truncated_anywhere_is_damaged(name, share, pack, tmp_path_factory):
    folder = tmp_path_factory.mktemp("cut")
    content = pack(name, {"noise": os.urandom(3000)})
    (folder / name).write_bytes(content[: int(share * len(content))])
    with pytest.raises(DamagedArchive, match="is damaged"):
        unpack(folder / name, folder / "into", LIMITS)


@pytest.mark.parametrize("name", ["x.zip", "x.tar.gz"])
def test_a_changed_byte_is_detected(name, pack, refuse):
    content = bytearray(pack(name, {"noise": os.urandom(3000)}))
    content[1500] ^= 1
    refuse(name, bytes(content), "is damaged")


@pytest.mark.parametrize("name", ["x.zip", "x.tar.bz2", "x.bz2", "x.gz", "x.xz"])
@settings(max_examples=25, deadline=None)
@given(place=st.floats(0, 0.999), byte=st.integers(0, 255))
def test_a_change_of_any_byte_is_detected_or_harmless(name, place, byte, pack, tmp_path_factory):
    folder, noise = tmp_path_factory.mktemp("changed"), NOISE
    alone = {"x.gz": gzip.compress, "x.bz2": bz2.compress, "x.xz": lzma.compress}
    content = bytearray(alone[name](noise) if name in alone else pack(name, {"x": noise}))
    content[int(place * len(content))] = byte
    (folder / name).write_bytes(content)
    with contextlib.suppress(DamagedArchive):
        unpack(folder / name, folder / "into", LIMITS)
        assert list(read(folder / "into").values()) in ([noise], [])


def test_a_zip_whose_directory_lies_after_its_end_is_damaged(pack, refuse):
    content = bytearray(pack("x.zip", FILES))
    content[-6:-2] = b"\xff\xff\xff\xfe"  # offset of its central directory
    refuse("x.zip", bytes(content), "is damaged")


def test_an_error_of_the_disk_is_not_reported_as_a_damaged_archive(pack, tmp_path):
    name = "x" * 300
    (tmp_path / "x.tar.gz").write_bytes(pack("x.tar.gz", {name: b""}))
    with pytest.raises(OSError, match="File name too long"):
        unpack(tmp_path / "x.tar.gz", tmp_path / "into", LIMITS)


def test_a_changed_byte_after_the_last_member_is_detected(pack, refuse):
    content = bytearray(pack("x.tar.gz", FILES))
    content[-6] ^= 1  # of the checksum, which tarfile alone does not read
    refuse("x.tar.gz", bytes(content), "CRC")


def test_a_web_page_instead_of_an_archive(refuse):
    refuse("x.zip", b"\n<!DOCTYPE html><title>Quota exceeded</title>", "because it is a web page")


@settings(max_examples=60, deadline=None)
@given(names=st.lists(st.text("ab./\\", min_size=1, max_size=8), max_size=4))
def test_no_archive_writes_outside_the_target(names, tmp_path_factory):
    place = tmp_path_factory.mktemp("place")
    archive, into = place / "x.tar.gz", place / "deep" / "into"
    archive.write_bytes(tar_of(*((name, tarfile.REGTYPE) for name in names)))
    with contextlib.suppress(DamagedArchive):
        unpack(archive, into, LIMITS)
    assert {path.name for path in place.iterdir()} <= {"x.tar.gz", "deep"}
    assert not [path for path in (place / "deep").glob("*") if path != into]


def peak_memory(function):
    """Bytes that `function()` allocates at once."""
    tracemalloc.start()
    try:
        function()
        return tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()


def repeated(head, unit, count):
    """`head` and `count` times `unit`, compressed by xz without holding it in memory."""
    packer = lzma.LZMACompressor(preset=0)
    units = (packer.compress(unit) for _ in range(count))
    return b"".join([packer.compress(head), *units, packer.flush()])


def header(name, kind, size):
    info = tarfile.TarInfo(name)
    info.type, info.size = kind, size
    return info.tobuf(tarfile.USTAR_FORMAT)


@pytest.mark.parametrize(
    "kind", [tarfile.XHDTYPE, tarfile.XGLTYPE, tarfile.GNUTYPE_LONGNAME, tarfile.GNUTYPE_LONGLINK]
)
def test_a_header_of_64_mib_is_refused_in_little_memory(kind, refuse):
    size = 64 << 20
    content = repeated(header("x", kind, size) + b"%d comment=" % size, b"x" * (1 << 20), 64)
    assert peak_memory(lambda: refuse("x.tar.xz", content, "262,144 bytes of headers", HIGH)) < 16 << 20


@pytest.mark.slow
def test_a_header_of_1_gib_is_refused_in_little_memory(refuse):
    size = 1 << 30
    content = repeated(header("x", tarfile.XHDTYPE, size) + b"%d comment=" % size, b"x" * (1 << 20), 1024)
    assert len(content) < 400_000
    assert peak_memory(lambda: refuse("x.tar.xz", content, "262,144 bytes of headers", HIGH)) < 16 << 20


def test_a_map_of_a_sparse_file_is_a_header_too(refuse):
    """GNU's sparse format 1.0 has its map, of any length, before the content."""
    pax = b"22 GNU.sparse.major=1\n22 GNU.sparse.minor=0\n30 GNU.sparse.realsize=100000\n"
    head = (
        header("p", tarfile.XHDTYPE, len(pax))
        + pax.ljust(512, b"\0")
        + header("x", tarfile.REGTYPE, 64 << 20)
    )
    content = repeated(head + b"9999999\n", b"1\n" * (1 << 19), 64)
    refuse("x.tar.xz", content, "bytes of headers", HIGH)


@pytest.mark.parametrize("mib", [64, pytest.param(4096, marks=pytest.mark.slow)])
def test_zeros_behind_the_last_member_count(mib, pack, refuse):
    content = repeated(gzip.decompress(pack("x.tar.gz", FILES)), bytes(1 << 20), mib)
    started = time.monotonic()
    refuse("x.tar.xz", content, "as a decompression bomb does")
    assert time.monotonic() - started < 5  # 4 GiB would take longer


def test_padding_and_another_name_are_fine(pack, tmp_path):
    """Tapes are written in blocks of up to a MiB, and some archives have a wrong suffix."""
    content = gzip.decompress(pack("x.tar.gz", FILES | {"noise": os.urandom(100_000)})) + bytes(1 << 20)
    (tmp_path / "x.tar.bz2").write_bytes(lzma.compress(content))
    unpack(tmp_path / "x.tar.bz2", tmp_path / "into", LIMITS)
    assert FILES.items() <= read(tmp_path / "into").items()


@pytest.mark.parametrize("kind", ["x.zip", "x.tar.gz"])
def test_names_in_messages_are_cut(kind, tmp_path):
    name = "../" + "n" * 60_000 + "\x1b"
    (tmp_path / kind).write_bytes(zip_of(name) if kind == "x.zip" else tar_of((name, tarfile.REGTYPE)))
    with pytest.raises(DamagedArchive, match="outside the target folder") as caught:
        unpack(tmp_path / kind, tmp_path / "into", LIMITS)
    assert len(str(caught.value)) < 300 + len(str(tmp_path))
    assert "\x1b" not in str(caught.value)


def test_a_truncated_plain_tar_is_damaged(pack, refuse):
    refuse("x.tar", pack("x.tar", {"noise": NOISE})[:1500], "is damaged")

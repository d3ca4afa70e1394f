"""Download of one file: resume, retries, checksums and errors."""

import hashlib
import shutil
import sys
from collections import namedtuple
from types import SimpleNamespace

import pytest

from domainbed.download.fetch import RetryPolicy, fetch
from domainbed.download.source import File
from domainbed.errors import RunError, UsageError, describe

CONTENT = bytes(range(256)) * 2000
SHA = f"sha256:{hashlib.sha256(CONTENT).hexdigest()}"


def names(folder):
    return sorted(path.name for path in folder.iterdir())


def test_a_download_leaves_only_the_complete_file(server, retries, tmp_path):
    served = server.serve("a.zip", CONTENT)
    assert fetch(File("a.zip", served.url, len(CONTENT), SHA), tmp_path, retries)
    assert (tmp_path / "a.zip").read_bytes() == CONTENT
    assert names(tmp_path) == ["a.zip"]
    assert not fetch(File("a.zip", served.url), tmp_path, retries)
    assert served.asked == [None]


def test_an_interrupted_download_is_resumed(server, retries, tmp_path):
    served = server.serve("a.zip", CONTENT, cuts=(1000, 70_000, 0, 5))
    fetch(File("a.zip", served.url, checksum=SHA), tmp_path, retries)
    assert served.asked == [None, "bytes=1000-", "bytes=71000-", "bytes=71000-", "bytes=71005-"]
    assert (tmp_path / "a.zip").read_bytes() == CONTENT


def test_another_call_resumes_a_failed_download(server, tmp_path):
    served = server.serve("a.zip", CONTENT, cuts=(1000, 0))
    file = File("a.zip", served.url, checksum=SHA)
    with pytest.raises(
        RunError, match="the connection ended after 1,000 of 512,000 bytes; gave up after 1 attempts"
    ):
        fetch(file, tmp_path, RetryPolicy(5.0, 1, 0.01))
    assert names(tmp_path) == ["a.zip.part", "a.zip.part.version"]
    fetch(file, tmp_path, RetryPolicy(5.0, 1, 0.01))
    assert served.asked[-1] == "bytes=1000-"
    assert names(tmp_path) == ["a.zip"]


def test_a_server_without_ranges_sends_the_whole_file_again(server, retries, tmp_path):
    served = server.serve("a.zip", CONTENT, ranges=False, cuts=(1000, 2000))
    fetch(File("a.zip", served.url, checksum=SHA), tmp_path, retries)
    assert served.asked == [None] * 3
    assert (tmp_path / "a.zip").read_bytes() == CONTENT


def test_a_file_that_changed_on_the_server_is_downloaded_from_its_beginning(server, retries, tmp_path):
    file = File("a.zip", server.serve("a.zip", CONTENT, cuts=(1000, 0)).url)
    with pytest.raises(RunError):
        fetch(file, tmp_path, RetryPolicy(5.0, 1, 0.01))
    served = server.serve("a.zip", CONTENT[::-1])
    fetch(file, tmp_path, retries)
    assert served.asked == ["bytes=1000-"]
    assert (tmp_path / "a.zip").read_bytes() == CONTENT[::-1]


def test_a_part_longer_than_the_servers_file_is_discarded(server, retries, tmp_path):
    served = server.serve("a.zip", CONTENT)
    (tmp_path / "a.zip.part").write_bytes(CONTENT + b"more")
    (tmp_path / "a.zip.part.version").write_text(f'"{hashlib.md5(CONTENT).hexdigest()}"')
    fetch(File("a.zip", served.url, checksum=SHA), tmp_path, retries)
    assert served.asked == [f"bytes={len(CONTENT) + 4}-", None]


def test_a_complete_part_is_not_downloaded_again(server, retries, tmp_path):
    served = server.serve("a.zip", CONTENT)
    (tmp_path / "a.zip.part").write_bytes(CONTENT)
    (tmp_path / "a.zip.part.version").write_text(f'"{hashlib.md5(CONTENT).hexdigest()}"')
    fetch(File("a.zip", served.url, checksum=SHA), tmp_path, retries)
    assert served.asked == [f"bytes={len(CONTENT)}-"]
    assert names(tmp_path) == ["a.zip"]


def test_an_attempt_without_data_times_out(server, tmp_path):
    served = server.serve("a.zip", CONTENT, cuts=(3000,), stall=1.0)
    fetch(File("a.zip", served.url, checksum=SHA), tmp_path, RetryPolicy(0.2, 3, 0.01))
    assert served.asked == [None, "bytes=3000-"]


def test_a_busy_server_is_tried_again(server, retries, tmp_path):
    served = server.serve("a.zip", CONTENT, fails=(503, 429))
    fetch(File("a.zip", served.url), tmp_path, retries)
    assert len(served.asked) == 3


def test_an_error_says_how_to_fetch_an_unavailable_file_by_hand(server, retries, tmp_path):
    served = server.serve("a.zip", CONTENT, fails=(404,))
    with pytest.raises(RunError, match="answers 404 Not Found") as info:
        fetch(File("a.zip", served.url), tmp_path, retries)
    assert len(served.asked) == 1
    assert f"Fetch it by hand: {served.url}; put it at {tmp_path / 'a.zip'}" in describe(info.value)


@pytest.mark.parametrize("fails", [(500,) * 9, (403,)])
def test_the_number_of_attempts_is_limited(server, retries, tmp_path, fails):
    served = server.serve("a.zip", CONTENT, fails=fails)
    with pytest.raises(RunError):
        fetch(File("a.zip", served.url), tmp_path, retries)
    assert len(served.asked) == (3 if len(fails) > 1 else 1)
    assert names(tmp_path) == []


def test_an_unreachable_server(retries, tmp_path):
    with pytest.raises(RunError, match=r"cannot be reached .* gave up after 3 attempts"):
        fetch(File("a.zip", "http://127.0.0.1:9/a.zip"), tmp_path, retries)


def test_a_wrong_checksum_is_refused(server, retries, tmp_path):
    served = server.serve("a.zip", b"not " + CONTENT)
    with pytest.raises(RunError, match=f"its sha256 checksum is .*, not {SHA[7:]}"):
        fetch(File("a.zip", served.url, checksum=SHA), tmp_path, retries)
    assert served.asked == [None] * 3
    assert names(tmp_path) == []


def test_too_little_disk_space_is_reported_before_the_download(server, retries, tmp_path, monkeypatch):
    served = server.serve("a.zip", CONTENT)
    monkeypatch.setattr(shutil, "disk_usage", lambda path: namedtuple("usage", "free")(1000))
    with pytest.raises(
        RunError, match=r"has 1,000 bytes of free disk space, but the download needs 512,000; free some space"
    ):
        fetch(File("a.zip", served.url), tmp_path, retries)
    assert names(tmp_path) == []


def test_progress_is_shown_on_a_terminal(server, retries, tmp_path, terminal):
    shown = terminal()
    fetch(File("a.zip", server.serve("a.zip", CONTENT).url), tmp_path, retries)
    assert "fetching a.zip: " in shown.getvalue()
    assert "/512k" in shown.getvalue()


def test_a_file_fetched_by_hand_is_used_if_its_checksum_is_right(retries, tmp_path):
    file = File("a.zip", "hand:ask its authors at example.org", checksum=SHA)
    with pytest.raises(RunError) as info:
        fetch(file, tmp_path, retries)
    assert f"ask its authors at example.org; put it at {tmp_path / 'a.zip'}" in describe(info.value)
    (tmp_path / "a.zip").write_bytes(CONTENT)
    assert not fetch(file, tmp_path, retries)
    (tmp_path / "a.zip").write_bytes(CONTENT[:-1])
    with pytest.raises(RunError, match="delete it"):
        fetch(file, tmp_path, retries)


def test_an_unknown_kind_of_address(retries, tmp_path):
    with pytest.raises(UsageError, match="known are http:, https:, gdown:, hand:"):
        fetch(File("a.zip", "s3://bucket/a.zip"), tmp_path, retries)


DRIVE = File("PACS.zip", "gdown:1JFr8")


def test_google_drive_without_a_network(tmp_path, monkeypatch):
    pytest.importorskip("gdown", "6.3")
    for name in ("http_proxy", "https_proxy", "HTTP_PROXY", "HTTPS_PROXY"):
        monkeypatch.setenv(name, "http://127.0.0.1:9")
    with pytest.raises(RunError, match=r"gdown cannot fetch PACS\.zip \(ProxyError") as info:
        fetch(DRIVE, tmp_path, RetryPolicy(2.0, 1, 0.01))
    assert f"drive.google.com/uc?id=1JFr8; put it at {tmp_path / 'PACS.zip'}" in describe(info.value)


@pytest.mark.parametrize("gdown", [None, SimpleNamespace(download=lambda url, output, resume: None)])
def test_google_drive_without_the_package_or_with_an_old_one(gdown, tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, "gdown", gdown)
    with pytest.raises(
        RunError, match=r"the package gdown is needed; run: pip install -U 'gdown>=6\.3'"
    ) as info:
        fetch(DRIVE, tmp_path, RetryPolicy(2.0, 1, 0.01))
    assert "Fetch it by hand: https://drive.google.com/uc?id=1JFr8" in describe(info.value)

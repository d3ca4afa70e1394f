"""The command `python -m domainbed.scripts.download`."""

import threading
import time
from dataclasses import replace
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from zipfile import ZipFile

import numpy as np
import pytest
from PIL import Image

from domainbed.datasets import REGISTRY
from domainbed.download import SOURCES
from domainbed.download.source import File, Source
from domainbed.errors import UnknownName, UsageError
from domainbed.scripts.download import main

ROOT = Path(__file__).parents[2]
PLUGIN = """
from domainbed.download import SOURCES
from domainbed.download.source import File, Source
SOURCES["Tiny"] = Source("Tiny", (File("tiny.zip", "hand:ask"),), "tiny", ("ink", "oil"), counts={"ink": 2})
"""


class Slow(SimpleHTTPRequestHandler):
    """Serves one archive with a pause in the middle, and supports ranges."""

    archive = b""
    pause = threading.Event()

    def do_GET(self):
        start = int((self.headers["Range"] or "bytes=0-")[6:-1])
        body = self.archive[start:]
        self.server.asked.append(start)
        self.send_response(206 if start else 200)
        self.send_header("ETag", '"one"')
        self.send_header("Content-Length", str(len(body)))
        if start:
            self.send_header("Content-Range", f"bytes {start}-{len(self.archive) - 1}/{len(self.archive)}")
        self.end_headers()
        self.wfile.write(body[:500])
        if not start:
            self.pause.wait(20)
        self.wfile.write(body[500:])

    def log_message(self, *_):
        pass


@pytest.fixture
def archive(tmp_path):
    """The bytes of a zip of four images."""
    with ZipFile(tmp_path / "made.zip", "w") as made:
        for number, name in enumerate(("ink/cat/0", "ink/dog/0", "oil/cat/0", "oil/dog/0")):
            pixels = np.random.default_rng(number).integers(0, 256, (16, 16, 3), dtype=np.uint8)
            Image.fromarray(pixels).save(tmp_path / "made.png")
            made.write(tmp_path / "made.png", f"tiny/{name}.png")
    return (tmp_path / "made.zip").read_bytes()


@pytest.fixture
def by_hand(archive, tmp_path):
    """A data directory with the archive of a registered source for manual download."""
    source = Source(
        "Tiny", (File("tiny.zip", "hand:ask for tiny.zip"),), "tiny", ("ink", "oil"), ("TinyToo",)
    )
    SOURCES["Tiny"] = source
    data_dir = tmp_path / "data"
    data_dir.mkdir()
    (data_dir / "tiny.zip").write_bytes(archive)
    yield data_dir
    del SOURCES["Tiny"]


def test_a_dataset_is_installed_by_its_name_or_its_sources(by_hand, capsys):
    assert main(["--data_dir", str(by_hand), "--dataset", "TinyToo", "Tiny", "EmojiStyles"]) == 0
    out = capsys.readouterr().out
    assert out.startswith("EmojiStyles needs no download\n")
    assert out.count("Tiny: verified") == 1
    assert "found: ink 2, oil 2 (expected: not known)" in out
    assert sorted(path.name for path in by_hand.glob("*")) == [".Tiny.files", ".Tiny.lock", "tiny"]


def test_verify_lists_every_problem_and_sets_the_exit_status(by_hand, capsys):
    flags = ["--data_dir", str(by_hand), "--datasets", "Tiny"]
    assert main([*flags, "--verify"]) == 1
    assert "Tiny: not installed; run with --datasets Tiny, without --verify" in capsys.readouterr().out
    main(flags)
    assert main([*flags, "--verify"]) == 0
    assert "(expected: the downloaded files)" in capsys.readouterr().out
    (by_hand / "tiny/oil/cat/0.png").write_bytes(b"no image")
    (by_hand / "tiny/ink/dog/0.png").rename(by_hand / "tiny/ink/dog/1.png")
    assert main([*flags, "--verify"]) == 1
    lines = capsys.readouterr().out.splitlines()
    assert lines[0].startswith("Tiny: differs from what was declared")
    for line in ("missing: ink/dog/0.png", "surplus: ink/dog/1.png", "unreadable: oil/cat/0.png"):
        assert f"  {line}" in lines
    assert main([*flags, "--verify", "--quick"]) == 1
    assert "unreadable" not in capsys.readouterr().out


def test_verify_without_names_accepts_datasets_that_are_not_installed(by_hand, capsys):
    main(["--data_dir", str(by_hand), "--datasets", "Tiny"])
    assert main(["--data_dir", str(by_hand), "--verify"]) == 0
    out = capsys.readouterr().out
    assert "PACS: not installed; run with --datasets PACS, without --verify" in out
    assert "Tiny: verified" in out


def test_a_failed_dataset_does_not_stop_the_others(by_hand, capsys):
    SOURCES["Lost"] = Source("Lost", (File("lost.zip", "hand:ask the authors"),), "lost", ("a",))
    try:
        assert main(["--data_dir", str(by_hand), "--datasets", "Lost", "Tiny"]) == 1
    finally:
        del SOURCES["Lost"]
    shown = capsys.readouterr()
    assert shown.err.count("\n") == 1
    assert f"Fetch it by hand: ask the authors; put it at {by_hand / 'lost.zip'}" in shown.err
    assert "Tiny: verified" in shown.out


def test_list_shows_every_dataset_that_needs_data(capsys, tmp_path):
    assert main(["--list", "--data_dir", str(tmp_path)]) == 0
    out = capsys.readouterr().out
    for name, cls in REGISTRY.items():
        if cls.__module__.startswith("domainbed.datasets.") and cls.missing(None):
            assert name in out
    assert "licence: not known" in out
    assert "licence: CC0" in out
    assert out.endswith("docs/datasets.md says what is unverified.\n")
    assert f"in {tmp_path}: not installed" in out
    assert main(["--list", "--datasets", "PACS"]) == 0
    assert "numbers: art_painting 2,048, cartoon 2,344, photo 1,670, sketch 3,929" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("flags", "error", "message"),
    [
        ([], UsageError, "--data_dir is missing"),
        (["--datasets", "PAKS", "--list"], UnknownName, "Dataset to download not found: PAKS"),
        (["--data_dir", ".", "--timeout", "0"], UsageError, "--timeout must be above 0"),
        (["--data_dir", ".", "--retries", "0"], UsageError, "--retries 1 or more"),
        (["--data_dir", ".", "--export", "PACS"], UsageError, "--export takes one of EmojiStyles"),
    ],
)
def test_bad_usage(flags, error, message):
    with pytest.raises(error, match=message):
        main(flags)


@pytest.fixture
def slow_server(archive, monkeypatch):
    """A server with the handler `Slow`; `asked` has the first byte of each request."""
    monkeypatch.setenv("no_proxy", "127.0.0.1")
    Slow.archive = archive
    server = ThreadingHTTPServer(("127.0.0.1", 0), Slow)
    server.daemon_threads, server.asked = True, []
    threading.Thread(target=server.serve_forever, args=(0.02,), daemon=True).start()
    yield server
    server.shutdown()
    server.server_close()


def test_a_killed_download_is_resumed(slow_server, by_hand, tmp_path, start_script):
    url = f"http://127.0.0.1:{slow_server.server_port}/"
    SOURCES["Tiny"] = replace(SOURCES["Tiny"], files=(File("tiny.zip", url),))
    flags = ("download", "--data_dir", tmp_path / "new", "--datasets", "Tiny")
    first = start_script(*flags)
    part = tmp_path / "new/tiny.zip.part"
    deadline = time.monotonic() + 20
    while not (part.exists() and part.stat().st_size == 500) and time.monotonic() < deadline:
        time.sleep(0.02)
    first.send_signal(9)
    assert first.wait().returncode == -9
    Slow.pause.set()
    done = start_script(*flags).wait()
    assert done.returncode == 0, done.stderr
    assert slow_server.asked == [0, 500]
    assert "Tiny: verified" in done.stdout


def test_a_plugin_adds_a_source_and_errors_have_one_line(tmp_path, script, one_line_error):
    (tmp_path / "tiny_plugin.py").write_text(PLUGIN)
    env = {"DOMAINBED_PLUGINS": "tiny_plugin", "PYTHONPATH": f"{ROOT}:{tmp_path}"}
    shown = script("download", "--list", "--datasets", "Tiny", env=env)
    assert "tiny.zip; checksum: not known" in shown.stdout
    failed = script("download", "--data_dir", tmp_path, "--datasets", "Tiny", env=env)
    assert "put it at" in one_line_error(failed, 1)
    misspelt = script("download", "--data_dir", tmp_path, "--datasets", "Tinny", env=env)
    assert one_line_error(misspelt, 2).endswith("not found: Tinny. Did you mean Tiny?")


def test_a_part_of_a_source_is_listed_and_installed_only_by_its_name(tmp_path, capsys):
    assert main(["--list"]) == 0
    assert "\nMNIST_test: for ColoredMNIST, RotatedMNIST, ColoredMNIST_IRM\n" in capsys.readouterr().out
    assert main(["--verify", "--data_dir", str(tmp_path)]) == 0
    assert "MNIST_test" not in capsys.readouterr().out

"""A local server with configurable faults, and small datasets to serve."""

import hashlib
import io
import tarfile
import threading
import time
import zipfile
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import numpy as np
import pytest
from PIL import Image

from domainbed.download import SOURCES
from domainbed.download.fetch import RetryPolicy
from domainbed.download.source import File, Source

COUNTS = {"ink": {"cat": 2, "dog": 1}, "oil": {"cat": 1, "dog": 2}}


class Served:
    """How one path is served.

    Attributes: content; ranges (whether ranges are supported); fails (statuses of the first requests); cuts
        (numbers of bytes after which the first answers end); stall (seconds to wait before they end);
        asked (the header Range of each request).
    """

    def __init__(self, content, ranges=True, fails=(), cuts=(), stall=0.0):
        self.content, self.ranges, self.stall = content, ranges, stall
        self.fails, self.cuts = list(fails), list(cuts)
        self.asked = []


class Handler(BaseHTTPRequestHandler):
    def do_GET(self):
        served = self.server.paths[self.path.lstrip("/")]
        served.asked.append(self.headers["Range"])
        if served.fails:
            self.send_error(served.fails.pop(0))
            return
        tag = f'"{hashlib.md5(served.content).hexdigest()}"'
        start = 0
        if served.ranges and self.headers["Range"] and self.headers["If-Range"] == tag:
            start = int(self.headers["Range"].removeprefix("bytes=").rstrip("-"))
        if start >= len(served.content) > 0:
            self.send_response(416)
            self.send_header("Content-Range", f"bytes */{len(served.content)}")
            self.end_headers()
            return
        body = served.content[start:]
        self.send_response(206 if start else 200)
        self.send_header("Content-Length", str(len(body)))
        if served.ranges:
            self.send_header("ETag", tag)
        if start:
            self.send_header(
                "Content-Range", f"bytes {start}-{len(served.content) - 1}/{len(served.content)}"
            )
        self.end_headers()
        cut = served.cuts.pop(0) if served.cuts else None
        self.wfile.write(body[:cut])
        if cut is not None:
            self.wfile.flush()
            time.sleep(served.stall)
            self.close_connection = True

    def log_message(self, *_):
        pass


class Server:
    def __init__(self):
        self.http = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self.http.paths = self.paths = {}
        threading.Thread(target=self.http.serve_forever, args=(0.02,), daemon=True).start()

    def serve(self, name, content, **how):
        """Serve `content` at `name`, and return its `Served` with the attribute `url`."""
        served = self.paths[name] = Served(content, **how)
        served.url = f"http://127.0.0.1:{self.http.server_port}/{name}"
        return served


@pytest.fixture(scope="session")
def whole_server():
    server = Server()
    yield server
    server.http.shutdown()
    server.http.server_close()


@pytest.fixture
def server(whole_server, monkeypatch):
    monkeypatch.setenv("no_proxy", "127.0.0.1")
    whole_server.paths.clear()
    return whole_server


@pytest.fixture
def retries():
    return RetryPolicy(timeout=5.0, tries=3, wait=0.01)


def image(number, image_format="PNG"):
    """Bytes of an image file of 8x8 pixels, which differ for each number."""
    pixels = np.random.default_rng(number).integers(0, 256, (8, 8, 3), dtype=np.uint8)
    file = io.BytesIO()
    Image.fromarray(pixels).save(file, image_format)
    return file.getvalue()


@pytest.fixture(scope="session")
def make_image():
    return image


@pytest.fixture(scope="session")
def tree():
    """`tree(counts, top="")` returns path -> bytes of a folder of images."""

    def make(counts, top=""):
        paths = [
            f"{top}{environment}/{label}/{i}.png"
            for environment, classes in counts.items()
            for label, n in classes.items()
            for i in range(n)
        ]
        return {path: image(number) for number, path in enumerate(paths)}

    return make


@pytest.fixture(scope="session")
def pack():
    """`pack(name, files)` returns an archive of path -> bytes, in the format of the suffix of `name`."""

    def make(name, files):
        packed = io.BytesIO()
        if name.endswith(".zip"):
            with zipfile.ZipFile(packed, "w", zipfile.ZIP_DEFLATED) as archive:
                for path, content in files.items():
                    archive.writestr(path, content)
            return packed.getvalue()
        mode = {"tgz": "w:gz"}.get(name.rpartition(".")[2], f"w:{name.rpartition('.')[2]}")
        with tarfile.open(fileobj=packed, mode=mode.replace(":tar", "")) as archive:
            for path, content in files.items():
                info = tarfile.TarInfo(path)
                info.size = len(content)
                archive.addfile(info, io.BytesIO(content))
        return packed.getvalue()

    return make


@pytest.fixture
def tiny(server, tree, pack):
    """`tiny(...)` serves a dataset of six images, and returns its source."""

    def make(name="tiny.zip", content=None, folder="tiny", **how):
        content = pack(name, tree(COUNTS, "inside/")) if content is None else content
        served = server.serve(name, content, **how)
        counts = {"ink": 3, "oil": 3, "ink/cat": 2}
        return Source("Tiny", (File(name, served.url),), folder, tuple(COUNTS), counts=counts, classes=2)

    return make


@pytest.fixture
def registered():
    """`registered(source)` registers a source until the end of the test."""
    names = []

    def register(source):
        SOURCES[source.name] = source
        names.append(source.name)
        return source

    yield register
    for name in names:
        del SOURCES[name]

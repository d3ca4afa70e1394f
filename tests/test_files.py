import os
import subprocess
import sys

import pytest

from domainbed.files import write_atomic


def test_write_and_replace(tmp_path):
    path = tmp_path / "file"
    write_atomic(path, "one")
    write_atomic(path, b"two")
    assert path.read_bytes() == b"two"
    assert [each.name for each in tmp_path.iterdir()] == ["file"]
    assert path.stat().st_mode & 0o777 == 0o666 & ~_umask()


def test_a_failed_write_leaves_only_the_old_file(tmp_path):
    path = tmp_path / "file"
    write_atomic(path, "old")
    with pytest.raises(OSError):
        write_atomic(path / "below", "new")
    with pytest.raises(UnicodeEncodeError):
        write_atomic(path, "\ud800")
    assert path.read_text() == "old"
    assert [each.name for each in tmp_path.iterdir()] == ["file"]


def test_a_killed_process_leaves_a_complete_file(tmp_path):
    path = tmp_path / "file"
    code = (
        "import sys; from pathlib import Path; from domainbed.files import write_atomic\n"
        "texts = ['a' * 300000, 'b' * 300000]\n"
        "for i in range(10**6):\n    write_atomic(Path(sys.argv[1]), texts[i % 2]); print(i, flush=True)"
    )
    for kill_after in (1, 3, 8):
        writer = subprocess.Popen([sys.executable, "-c", code, path], stdout=subprocess.PIPE, text=True)
        for _ in range(kill_after):
            writer.stdout.readline()
        writer.kill()
        writer.communicate()
        assert path.read_text() in ("a" * 300000, "b" * 300000)


def _umask():
    mask = os.umask(0)
    os.umask(mask)
    return mask

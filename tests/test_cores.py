"""Threads are as many as the cores that the process may use."""

import os
import threading
import time
import traceback
import warnings
from pathlib import Path

import pytest

from domainbed.cores import cores
from domainbed.images.building import map_in_threads

ROOT = Path(__file__).parents[1]


@pytest.fixture
def on_one_core():
    """`on_one_core(f)`: whether f() is true in a fork that may use one core."""

    def run(condition):
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", DeprecationWarning)  # Python 3.12: idle threads of libraries
            process = os.fork()
        if process == 0:
            status = 2
            try:
                os.sched_setaffinity(0, {min(os.sched_getaffinity(0))})
                status = 0 if condition() else 1
            except BaseException:
                traceback.print_exc()
            os._exit(status)
        return os.waitstatus_to_exitcode(os.waitpid(process, 0)[1]) == 0

    return run


ALLOCATED = ("SLURM_CPUS_PER_TASK", "NSLOTS", "NCPUS")


@pytest.fixture
def quota(tmp_path, monkeypatch):
    """The file with the quota of this container, which has none, in no job."""
    for name in ALLOCATED:
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setattr("domainbed.cores._QUOTA", tmp_path / "cpu.max")
    return tmp_path / "cpu.max"


@pytest.mark.usefixtures("quota")
@pytest.mark.parametrize("variable", ALLOCATED)
def test_cores_are_those_that_the_process_may_use(on_one_core, monkeypatch, variable):
    assert cores() == len(os.sched_getaffinity(0))
    assert on_one_core(lambda: cores() == 1)
    monkeypatch.setenv(variable, "1")
    assert cores() == 1
    monkeypatch.setenv(variable, "4096")
    assert cores() == len(os.sched_getaffinity(0))
    monkeypatch.setenv(variable, "0")
    assert cores() == len(os.sched_getaffinity(0))


@pytest.mark.parametrize(
    ("text", "number"), [("max 100000", 10**6), ("50000 100000", 1), ("400000 100000", 4)]
)
def test_cores_are_at_most_the_quota_of_a_container_rounded_up(quota, text, number):
    quota.write_text(f"{text}\n", encoding="ascii")
    assert cores() == min(number, len(os.sched_getaffinity(0)))


def test_images_are_decoded_by_as_many_threads(on_one_core):
    def threads():
        def thread(_):
            time.sleep(0.001)
            return threading.get_ident()

        return len(set(map_in_threads(thread, 100, "")))

    assert on_one_core(lambda: threads() == 1)
    assert 1 <= threads() <= cores()


def test_all_cores_of_the_machine_are_counted_nowhere():
    sources = [path for room in ("domainbed", "domainbed_gs") for path in (ROOT / room).rglob("*.py")]
    assert len(sources) > 200
    counting = [path.name for path in sources if "cpu_count" in path.read_text(encoding="utf-8")]
    assert counting == ["cores.py", "doctor.py"]  # `doctor` says how many there are

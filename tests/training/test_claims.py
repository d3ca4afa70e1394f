import json
import os
import shutil
import signal
import subprocess
import sys
import threading
import time
from pathlib import Path

import pytest

from domainbed.files import write_atomic
from domainbed.training import claims
from domainbed.training.claims import (
    AlreadyClaimed,
    Claim,
    active_owner,
    latest_claim,
    seems_running,
    this_process,
)

ROOT = Path(__file__).parents[2]
ELSEWHERE = {"pid": 1, "host": "elsewhere", "processes": "another", "started": "0", "beat": 0}


@pytest.fixture
def fast(monkeypatch):
    monkeypatch.setattr(claims, "HEARTBEAT_SECONDS", 0.05)
    monkeypatch.setattr(claims, "WATCH_SECONDS", 0.5)
    monkeypatch.setattr(claims, "STALE_SECONDS", 0.5)


def process(code, *arguments):
    fast = "claims.HEARTBEAT_SECONDS = 0.05; claims.WATCH_SECONDS = claims.STALE_SECONDS = 0.5\n"
    code = f"import sys, time\nfrom pathlib import Path\nfrom domainbed.training import claims\n{fast}{code}"
    return subprocess.Popen(
        [sys.executable, "-c", code, *map(str, arguments)],
        env=os.environ | {"PYTHONPATH": str(ROOT)},
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    )


def set_age(path, seconds):
    then = time.time() - seconds
    os.utime(path, (then, then))


def test_claims_follow_each_other(tmp_path):
    assert latest_claim(tmp_path) == (0, None)
    first = Claim(tmp_path)
    assert first.is_held()
    assert active_owner(tmp_path)["pid"] == os.getpid()
    with pytest.raises(AlreadyClaimed, match=f"process {os.getpid()} on"):
        Claim(tmp_path)
    first.release()
    assert active_owner(tmp_path) is None
    second = Claim(tmp_path)
    assert (second.number, first.is_held(), second.is_held()) == (2, False, True)
    second.release()
    assert [path.name for path in tmp_path.iterdir()] == ["claim-2.json"]


def test_the_claim_of_a_dead_local_process_is_taken_over_at_once(tmp_path):
    worker = process("claims.Claim(Path(sys.argv[1])); print('in', flush=True); time.sleep(60)", tmp_path)
    worker.stdout.readline()
    with pytest.raises(AlreadyClaimed, match=f"process {worker.pid} on"):
        Claim(tmp_path)
    worker.kill()
    worker.communicate()
    assert active_owner(tmp_path) is None
    Claim(tmp_path).release()


def test_only_one_of_several_processes_takes_over_a_claim(tmp_path):
    (tmp_path / "claim-3.json").write_text(json.dumps(ELSEWHERE))
    set_age(tmp_path / "claim-3.json", 3600)
    code = (
        "time.sleep(max(0, float(sys.argv[2]) - time.time()))\n"
        "try:\n    claims.Claim(Path(sys.argv[1])); print('mine', flush=True); time.sleep(3)\n"
        "except claims.AlreadyClaimed: print('refused')"
    )
    workers = [process(code, tmp_path, time.time() + 1) for _ in range(5)]
    ends = sorted(worker.communicate()[0].strip() for worker in workers)
    assert ends == ["mine", *["refused"] * 4]
    assert latest_claim(tmp_path)[0] == 4


@pytest.mark.usefixtures("fast")
def test_a_hanging_holder_loses_its_claim_and_notices(tmp_path):
    code = (
        "claim = claims.Claim(Path(sys.argv[1])); print('in', flush=True); sys.stdin.readline()\n"
        "print('held' if claim.is_held() else 'lost'); claim.release()"
    )
    worker = process(code, tmp_path)
    worker.stdout.readline()
    worker.send_signal(signal.SIGSTOP)
    with pytest.raises(AlreadyClaimed):
        Claim(tmp_path)
    time.sleep(0.6)
    claim = Claim(tmp_path)
    worker.send_signal(signal.SIGCONT)
    assert worker.communicate("go on\n")[0].strip() == "lost"
    time.sleep(0.2)
    assert claim.is_held()
    assert latest_claim(tmp_path)[1]["pid"] == os.getpid()
    claim.release()


@pytest.mark.usefixtures("fast")
@pytest.mark.parametrize("age", [3600, -3600])
def test_a_claim_with_new_heartbeats_is_respected_whatever_their_times(tmp_path, age):
    """Another host's clock may be wrong in both directions."""
    marker = tmp_path / "claim-1.json"
    stop = threading.Event()

    def beat():
        for beats in range(1000):
            write_atomic(marker, json.dumps(ELSEWHERE | {"beat": beats}))
            set_age(marker, age)
            if stop.wait(0.05):
                return

    beating = threading.Thread(target=beat)
    beating.start()
    time.sleep(0.1)
    with pytest.raises(AlreadyClaimed, match="process 1 on elsewhere"):
        Claim(tmp_path)
    stop.set()
    beating.join()
    Claim(tmp_path).release()


def test_a_recent_claim_of_another_host_is_respected_without_waiting(tmp_path):
    (tmp_path / "claim-1.json").write_text(json.dumps(ELSEWHERE))
    assert active_owner(tmp_path) == ELSEWHERE
    with pytest.raises(AlreadyClaimed, match="elsewhere"):
        Claim(tmp_path)


@pytest.mark.usefixtures("fast")
def test_heartbeats_report_progress(tmp_path):
    claim = Claim(tmp_path)
    claim.progress = {"step": 7}
    for _ in range(200):
        if latest_claim(tmp_path)[1].get("step") == 7:
            break
        time.sleep(0.02)
    assert latest_claim(tmp_path)[1]["beat"] > 0
    claim.release()


@pytest.mark.usefixtures("fast")
def test_a_damaged_claim_is_watched_and_then_taken_over_over(tmp_path):
    (tmp_path / "claim-2.json").write_text("{")
    with pytest.raises(AlreadyClaimed):
        Claim(tmp_path)
    set_age(tmp_path / "claim-2.json", 60)
    Claim(tmp_path).release()


def test_a_reused_pid_is_another_process(tmp_path):
    marker = tmp_path / "marker"
    marker.touch()
    assert seems_running(this_process(), marker)
    assert not seems_running(this_process() | {"started": "1"}, marker)
    assert seems_running(ELSEWHERE, marker)
    set_age(marker, 3600)
    assert not seems_running(ELSEWHERE, marker)
    assert seems_running(this_process(), marker)


def test_a_living_process_of_this_host_is_at_work_whatever_its_file_times_say(tmp_path):
    """As after someone set this host's clock, or where a file server has another one."""
    folders = [tmp_path / name for name in ("living", "stopped", "dead", "released", "never claimed")]
    for folder in folders:
        folder.mkdir()
    code = "claims.Claim(Path(sys.argv[1])); print('in', flush=True); time.sleep(60)"
    workers = [process(code, folder) for folder in folders[:3]]
    for worker in workers:
        worker.stdout.readline()
    workers[1].send_signal(signal.SIGSTOP)
    workers[2].kill()
    workers[2].communicate()
    Claim(folders[3]).release()
    for age in (7200, -7200):
        for folder in folders[:2]:
            set_age(folder / "claim-1.json", age)
        assert active_owner(folders[0])["pid"] == workers[0].pid
        assert claims.at_work(folders) == {*folders[:2]}
    for worker in workers[:2]:
        worker.kill()
        worker.communicate()


@pytest.mark.usefixtures("fast")
def test_heartbeats_of_other_hosts_are_watched(tmp_path):
    living, dead = tmp_path / "living", tmp_path / "dead"
    for folder in (living, dead):
        folder.mkdir()
        (folder / "claim-1.json").write_text(json.dumps(ELSEWHERE))
        set_age(folder / "claim-1.json", 3600)
    stop = threading.Event()

    def beat():
        beats = 0
        while not stop.wait(0.1):
            beats += 1
            write_atomic(living / "claim-1.json", json.dumps(ELSEWHERE | {"beat": beats}))
            set_age(living / "claim-1.json", 3600)

    beating = threading.Thread(target=beat)
    beating.start()
    assert claims.at_work([living, dead]) == {living}
    stop.set()
    beating.join()


def test_a_claim_ends_with_its_directory_although_another_process_makes_both_again(tmp_path):
    folder = tmp_path / "run"
    folder.mkdir()
    mine = Claim(folder)
    assert mine.is_held()
    shutil.rmtree(folder)
    assert not mine.is_held()
    folder.mkdir()
    worker = process("claims.Claim(Path(sys.argv[1])); print('in', flush=True); time.sleep(60)", folder)
    worker.stdout.readline()
    assert latest_claim(folder)[0] == mine.number
    assert not mine.is_held()
    mine.release()
    assert latest_claim(folder)[1]["pid"] == worker.pid
    worker.kill()
    worker.communicate()

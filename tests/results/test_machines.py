"""Reports say if runs were computed on different machines."""

import json

from domainbed.results.machines import describe_machines, notes_on_machines

ONE = {"processor": "P", "kernels": "AVX2", "threads": 1, "device": "cpu", "torch": "2.9"}


def runs_on(folder, *machines_of_runs):
    """Directories of runs, each of which was computed on the given machines in turn."""
    paths = []
    for number, machines in enumerate(machines_of_runs):
        path = folder / str(number)
        path.mkdir()
        if machines is not None:
            (path / "run.json").write_text(json.dumps({"machines": machines}))
        paths.append(path)
    return paths


def test_one_machine_needs_no_note(tmp_path):
    runs = runs_on(tmp_path, [ONE], [ONE], None)
    assert notes_on_machines(runs) == []
    assert describe_machines(runs) == ["P, AVX2, 1 thread, cpu, torch 2.9 (2 runs)"]


def test_what_differs_between_runs_or_within_a_resumed_one_is_named(tmp_path):
    runs = runs_on(tmp_path, [ONE], [ONE, ONE | {"threads": 4}], [ONE | {"torch": "2.8"}])
    (note,) = notes_on_machines(runs)
    assert "different threads (1: 3, 4: 1); torch (2.9: 3, 2.8: 1)" in note
    assert len(describe_machines(runs)) == 3


def test_older_and_damaged_runs_say_nothing(tmp_path):
    (old,) = runs_on(tmp_path, [])
    (tmp_path / "damaged").mkdir()
    (tmp_path / "damaged" / "run.json").write_text("{")
    assert describe_machines([old, tmp_path / "damaged", tmp_path / "missing"]) == []

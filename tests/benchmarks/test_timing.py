import runpy
import time
from pathlib import Path

import pytest

TIMING = runpy.run_path(str(Path(__file__).parents[2] / "benchmarks" / "timing.py"))


def test_functions_take_turns_and_warmup_does_not_count():
    calls = []
    functions = {name: lambda name=name: calls.append(name) for name in "abc"}
    times = TIMING["interleaved"](functions, rounds=3, warmup=1)
    assert "".join(calls) == "abccbaabccba"
    assert {name: len(each) for name, each in times.items()} == dict.fromkeys("abc", 3)


def test_times_are_those_of_the_calls():
    times = TIMING["interleaved"]({"nothing": lambda: None, "nap": lambda: time.sleep(0.02)}, 3, 0)
    # A busy machine may hold up any one call.
    assert min(times["nap"]) >= 0.02 > min(times["nothing"])


def test_a_report_has_medians_and_medians_of_ratios(capsys):
    times = {"slow": [4.0, 2.0, 8.0], "fast": [1.0, 1.0, 2.0]}
    found = TIMING["report"]("Title", times, "slow", {"slow": 8, "fast": 8}, "images")
    assert found == {"slow": 1.0, "fast": pytest.approx(0.25)}
    shown = capsys.readouterr().out
    assert "### Title" in shown
    assert "| slow | 4000.00 |" in shown
    assert "| fast | 1000.00 | 1000.00 to 2000.00 | 0.250 | 8 |" in shown


def test_the_environment_is_said():
    about = TIMING["environment"]()
    assert {"processor", "memory", "threads of torch", "system", "packages"} <= about.keys()
    assert about["threads of torch"] == "1"

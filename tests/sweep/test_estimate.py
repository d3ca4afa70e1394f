"""How long a sweep will take: runs that cannot be measured beforehand."""

from domainbed.sweep.estimate import estimate
from domainbed.sweep.job import Job


def test_a_run_that_cannot_be_measured_is_named_and_the_others_are_measured(tmp_path, caplog):
    shared = {"dataset": "Debug28", "test_envs": [0], "steps": 3}
    jobs = [
        Job({**shared, "algorithm": algorithm, "trial_seed": trial}, str(tmp_path))
        for algorithm, trial in (("Nosuch", 0), ("ERM", 0), ("ERM", 1))
    ]
    found = estimate(jobs, threads=1, budget=60.0)
    assert found.source == "from a few steps of 1 of 2 kinds of run"
    assert 0 < found.low <= found.seconds <= found.high
    assert "a run of Nosuch could not be measured" in caplog.text
    assert "Algorithm not found: Nosuch" in caplog.text

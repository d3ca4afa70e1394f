"""Sweep files that come with the package, by name."""

from pathlib import Path

import pytest

from domainbed.errors import UsageError, describe
from domainbed.sweep.flags import parse
from domainbed.sweep.installed_sweeps import find_sweep_file, sweep_files

SWEEPS = Path(__file__).parents[2] / "sweeps"


def test_every_sweep_file_has_a_name():
    assert sweep_files() == {path.stem: path for path in sorted(SWEEPS.glob("*.toml"))}


def test_a_name_means_what_the_path_means():
    by_name, by_path = (
        parse(["launch", "--config", each]) for each in ("quickstart", str(SWEEPS / "quickstart.toml"))
    )
    assert vars(by_name) | {"config": None} == vars(by_path) | {"config": None}


def test_a_file_of_the_user_goes_before_a_name(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    Path("quickstart").write_text("n_trials = 77")
    assert parse(["launch", "--config", "quickstart"]).n_trials == 77
    assert find_sweep_file(Path("missing.toml")) == Path("missing.toml")


def test_a_misspelt_name_gets_the_nearest_one():
    with pytest.raises(UsageError) as caught:
        parse(["launch", "--config", "quickstar"])
    assert describe(caught.value).endswith("Did you mean quickstart?")
    with pytest.raises(UsageError, match=r"cannot read sweep file .*quickstar\.toml"):
        parse(["launch", "--config", "quickstar.toml"])

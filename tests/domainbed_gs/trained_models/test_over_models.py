"""Measurements of many models: tables, resuming, and files that cannot be used."""

import shutil
from dataclasses import dataclass, field

import pytest

from domainbed.errors import RunError, UsageError
from domainbed_gs.trained_models.loading import LoadOptions, saved_models
from domainbed_gs.trained_models.over_models import measure_models
from domainbed_gs.trained_models.samples import draw_samples
from domainbed_gs.trained_models.table import Layout

CPU = LoadOptions(device="cpu")


@dataclass
class Counts:
    """Counts samples of each environment; stops like Ctrl-C at the model `stop_at`."""

    samples: int = 3
    stop_at: str = ""
    measured: list[str] = field(default_factory=list)
    layouts = {"counts.csv": Layout(("samples",), ("environment",), ("count", "nothing"))}

    @property
    def settings(self):
        return {"samples": self.samples}

    def units(self, model):
        return 3

    def measure(self, model, advance):
        name = model.path.parent.name
        if name == self.stop_at:
            raise KeyboardInterrupt
        self.measured.append(name)
        drawn = draw_samples(model, "in", self.samples)
        advance()
        rows = [{"environment": each.name, "count": len(each.y), "nothing": float("nan")} for each in drawn]
        return {"counts.csv": rows}


@pytest.fixture
def sweep(finished_run, tmp_path):
    for name in "abc":
        shutil.copytree(finished_run, tmp_path / "sweep" / name)
    return tmp_path / "sweep"


def test_each_model_has_its_rows(sweep):
    tables = measure_models(saved_models(sweep), Counts(), sweep, CPU)
    rows = tables["counts.csv"].rows
    assert [row["run"] for row in rows] == [name for name in "abc" for _ in range(3)]
    assert rows[0] | {"model_sha256": "", "nothing": 0} == {
        **{
            "run": "a",
            "model_sha256": "",
            "dataset": "Debug28",
            "algorithm": "ERM",
            "targets": rows[0]["environment"],
        },
        **{"trial_seed": "0", "hparams_seed": "0", "seed": "0", "step": "", "samples": "3"},
        **{"environment": rows[0]["environment"], "count": 3.0, "nothing": 0},
    }
    assert rows[0]["nothing"] != rows[0]["nothing"]


def test_an_interrupted_command_resumes_with_the_next_model(sweep):
    uninterrupted = measure_models(saved_models(sweep), Counts(), sweep / "whole", CPU)["counts.csv"].rows
    with pytest.raises(KeyboardInterrupt):
        measure_models(saved_models(sweep), Counts(stop_at="c"), sweep, CPU)
    again = Counts()
    rows = measure_models(saved_models(sweep), again, sweep, CPU)["counts.csv"].rows
    assert again.measured == ["c"]
    assert [row["count"] for row in rows] == [row["count"] for row in uninterrupted]
    once_more = Counts()
    measure_models(saved_models(sweep), once_more, sweep, CPU)
    assert once_more.measured == []


def test_a_model_that_changed_is_measured_again(sweep, train_run):
    measure_models(saved_models(sweep), Counts(), sweep, CPU)
    other = train_run(sweep.parent / "other", algorithm="IRM")
    shutil.copy(other / "model.pkl", sweep / "b" / "model.pkl")
    again = Counts()
    rows = measure_models(saved_models(sweep), again, sweep, CPU)["counts.csv"].rows
    assert again.measured == ["b"]
    assert sorted((row["run"], row["algorithm"]) for row in rows) == sorted(
        (run, algorithm) for run, algorithm in [("a", "ERM"), ("b", "IRM"), ("c", "ERM")] for _ in range(3)
    )


def test_other_settings_are_refused_unless_it_starts_over(sweep):
    measure_models(saved_models(sweep), Counts(), sweep, CPU)
    with pytest.raises(UsageError, match="was measured with samples 3, not 4; use the same settings"):
        measure_models(saved_models(sweep), Counts(samples=4), sweep, CPU)
    tables = measure_models(saved_models(sweep), Counts(samples=4), sweep, CPU, restart=True)
    assert {row["count"] for row in tables["counts.csv"].rows} == {4.0}


def test_a_damaged_model_is_named_and_the_others_are_measured(sweep, caplog):
    (sweep / "b" / "model.pkl").write_bytes(b"damaged")
    counts = Counts()
    with pytest.raises(RunError, match=r"1 of 3 models could not be measured .*b/model.pkl is damaged"):
        measure_models(saved_models(sweep), counts, sweep, CPU)
    assert counts.measured == ["a", "c"]
    assert "not measured: " in caplog.text
    with pytest.raises(UsageError, match="is not a model written by train"):
        measure_models([sweep / "b" / "model.pkl"], Counts(), sweep, CPU)


@pytest.mark.parametrize("content", ["a,b\n1,2\n", "", "run,model_sha256\n", "\x00\xff"])
def test_a_file_that_is_no_such_table_is_refused_and_kept(sweep, content):
    (sweep / "counts.csv").write_text(content, encoding="latin-1")
    with pytest.raises(UsageError, match=r"is not a table of this measurement|cannot read"):
        measure_models(saved_models(sweep), Counts(), sweep, CPU)
    assert (sweep / "counts.csv").read_text(encoding="latin-1") == content


def test_a_single_run_elsewhere_has_its_whole_path(sweep, tmp_path):
    rows = measure_models([sweep / "a" / "model.pkl"], Counts(), tmp_path / "out", CPU)["counts.csv"].rows
    assert {row["run"] for row in rows} == {str(sweep / "a")}

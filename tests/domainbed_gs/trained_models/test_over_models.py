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
    """Counts samples of each environment; stops like Ctrl-C at the model `stop_at`, fails at `fail_at`."""

    samples: int = 3
    stop_at: str = ""
    fail_at: str = ""
    error: Exception = field(default_factory=lambda: RunError("its loss is not finite"))
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
        if name == self.fail_at:
            raise self.error
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
    rows = measure_models(saved_models(sweep), Counts(), sweep, CPU).rows("counts.csv")
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
    uninterrupted = measure_models(saved_models(sweep), Counts(), sweep / "whole", CPU).rows("counts.csv")
    with pytest.raises(KeyboardInterrupt):
        measure_models(saved_models(sweep), Counts(stop_at="c"), sweep, CPU)
    again = Counts()
    rows = measure_models(saved_models(sweep), again, sweep, CPU).rows("counts.csv")
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
    rows = measure_models(saved_models(sweep), again, sweep, CPU).rows("counts.csv")
    assert again.measured == ["b"]
    assert sorted((row["run"], row["algorithm"]) for row in rows) == sorted(
        (run, algorithm) for run, algorithm in [("a", "ERM"), ("b", "IRM"), ("c", "ERM")] for _ in range(3)
    )


def test_other_settings_are_refused_unless_it_starts_over(sweep):
    measure_models(saved_models(sweep), Counts(), sweep, CPU)
    with pytest.raises(UsageError, match="was measured with samples 3, not 4; use the same settings"):
        measure_models(saved_models(sweep), Counts(samples=4), sweep, CPU)
    found = measure_models(saved_models(sweep), Counts(samples=4), sweep, CPU, restart=True)
    assert {row["count"] for row in found.rows("counts.csv")} == {4.0}


def runs_of(rows):
    return list(dict.fromkeys(row["run"] for row in rows))


def test_a_damaged_model_is_named_and_the_others_are_measured(sweep, caplog):
    (sweep / "b" / "model.pkl").write_bytes(b"damaged")
    counts = Counts()
    found = measure_models(saved_models(sweep), counts, sweep, CPU)
    with pytest.raises(
        RunError, match=r"1 of 3 models could not be measured .*b/model.pkl is damaged"
    ) as raised:
        found.check()
    assert str(raised.value).endswith("; train them again or remove them, and repeat the command")
    assert counts.measured == ["a", "c"] == runs_of(found.rows("counts.csv"))
    assert "not measured: " in caplog.text
    with pytest.raises(UsageError, match="is not a model written by train"):
        measure_models([sweep / "b" / "model.pkl"], Counts(), sweep, CPU)


@pytest.mark.parametrize("error", [RunError("not finite"), UsageError("no gradients")])
def test_a_model_that_cannot_be_measured_counts_as_such(sweep, error):
    found = measure_models(saved_models(sweep), Counts(fail_at="a", error=error), sweep, CPU)
    assert runs_of(found.rows("counts.csv")) == ["b", "c"]
    with pytest.raises(RunError, match=rf"1 of 3 models could not be measured \({error}\)"):
        found.check()


def test_rows_of_an_earlier_file_go_with_it_when_the_new_one_cannot_be_measured(sweep):
    measure_models(saved_models(sweep), Counts(), sweep, CPU)
    (sweep / "b" / "model.pkl").write_bytes(b"damaged")
    with pytest.raises(UsageError, match="is damaged"):  # the only model
        measure_models([sweep / "b" / "model.pkl"], Counts(), sweep, CPU)
    again = Counts()
    found = measure_models(saved_models(sweep), again, sweep, CPU)
    assert again.measured == []
    assert runs_of(found.rows("counts.csv")) == ["a", "c"]
    assert runs_of(found.tables["counts.csv"].rows) == ["a", "c"]


def test_rows_of_models_that_are_not_named_stay_in_the_file_and_are_not_shown(sweep, tmp_path, caplog):
    out = tmp_path / "out"
    first, second, third = saved_models(sweep)
    measure_models([first], Counts(), out, CPU)
    assert not caplog.messages
    found = measure_models([second], Counts(), out, CPU)
    assert runs_of(found.rows("counts.csv")) == [str(sweep / "b")]
    assert caplog.messages == [
        f"warning: {out / 'counts.csv'} also has 3 rows of models that are not among those named; they stay "
        "in the file, but tables and figures leave them out"
    ]
    caplog.clear()
    again = Counts()
    found = measure_models([first, second, third], again, out, CPU)
    assert again.measured == ["c"]
    assert runs_of(found.rows("counts.csv")) == [str(sweep / name) for name in "abc"]
    shutil.rmtree(sweep / "a")
    found = measure_models(saved_models(sweep), again, out, CPU)
    assert runs_of(found.rows("counts.csv")) == [str(sweep / name) for name in "bc"]
    assert runs_of(found.tables["counts.csv"].rows) == [str(sweep / name) for name in "abc"]
    assert "also has 3 rows of models" in caplog.text


def test_a_damaged_number_is_named_with_its_column(sweep):
    measure_models(saved_models(sweep), Counts(), sweep, CPU)
    path = sweep / "counts.csv"
    path.write_text(path.read_text().replace(",3,\n", ",3x,\n", 1))
    with pytest.raises(UsageError) as raised:
        measure_models(saved_models(sweep), Counts(), sweep, CPU)
    assert str(raised.value) == (
        f"{path} has '3x' in the column count, where a number belongs; restore the file, or delete it and "
        "measure again"
    )


def test_a_folder_that_cannot_be_created_is_refused_in_one_line(sweep):
    file = sweep / "a" / "model.pkl"
    for folder, reason in ((file, "File exists"), (file / "out", "Not a directory")):
        with pytest.raises(
            UsageError, match=f"^cannot write to {folder}: {reason}; choose another --output_dir$"
        ):
            measure_models([file], Counts(), folder, CPU)


@pytest.mark.parametrize("content", ["a,b\n1,2\n", "", "run,model_sha256\n", "\x00\xff"])
def test_a_file_that_is_no_such_table_is_refused_and_kept(sweep, content):
    (sweep / "counts.csv").write_text(content, encoding="latin-1")
    with pytest.raises(UsageError, match=r"is not a table of this measurement|cannot read"):
        measure_models(saved_models(sweep), Counts(), sweep, CPU)
    assert (sweep / "counts.csv").read_text(encoding="latin-1") == content


def test_a_single_run_elsewhere_has_its_whole_path(sweep, tmp_path):
    rows = measure_models([sweep / "a" / "model.pkl"], Counts(), tmp_path / "out", CPU).rows("counts.csv")
    assert {row["run"] for row in rows} == {str(sweep / "a")}

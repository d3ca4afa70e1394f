"""The sharpness study from its command line, from Python, and in reports."""

import csv
import shutil

import pytest
from tqdm import tqdm

from domainbed.errors import RunError, UsageError, run_script
from domainbed.escaping import csv_line
from domainbed.scripts import collect_results
from domainbed_gs.scripts import sharpness
from domainbed_gs.sharpness import figure, study
from domainbed_gs.studies.command import figure_files

QUICK = ["--samples=4", "--ascent_steps=2", "--lanczos_steps=3", "--probes=2", "--directions=1", "--points=3"]


@pytest.fixture(scope="module")
def sweep(finished_run, train_run, tmp_path_factory):
    """A sweep directory with two runs of ERM and one of IRM."""
    folder = tmp_path_factory.mktemp("sweep")
    shutil.copytree(finished_run, folder / "erm")
    train_run(folder / "erm1", trial_seed=1)
    train_run(folder / "irm", algorithm="IRM")
    return folder


@pytest.fixture(scope="module")
def measured(sweep):
    """The same, measured."""
    assert sharpness.main(["--sweep", str(sweep), *QUICK]) == 0
    return sweep


def test_a_sweep_has_tables_and_a_figure(measured, capsys):
    rows, curves = study.read(measured)
    assert [row["run"] for row in rows] == [name for name in ("erm", "erm1", "irm") for _ in range(4)]
    assert [row["role"] for row in rows[:4]] == ["pooled", "target", "source", "source"]
    assert all(row["worst_rise"] >= row["one_step_rise"] for row in rows)
    assert all(row["loss"] > 0 and row["eigenvalue_error"] >= 0 for row in rows)
    assert len(curves) == 3 * 4 * 3
    assert (measured / "sharpness.png").read_bytes().startswith(b"\x89PNG")
    assert sharpness.main(["--sweep", str(measured), *QUICK]) == 0  # nothing is measured again
    out = capsys.readouterr().out
    assert "rise of the loss after one ascent step" in out
    assert f"Table: {measured / 'sharpness.csv'}" in out
    assert study.read(measured)[0] == rows


def test_panels_of_a_page_have_the_same_axes(measured):
    ((_, methods),) = figure.panels(study.read(measured)[1]).items()
    drawn = figure.page_panels(methods)
    assert [name for name, _ in drawn] == ["ERM", "IRM"]
    limits = {panel.axes[0].get_ylim() for _, panel in drawn}
    assert len(limits) == 1
    (low, high), *_ = limits
    for _, panel in drawn:
        lines = [line for line in panel.axes[0].lines if len(line.get_xdata()) == 3]
        assert len(lines) == 4
        assert all(low <= rise <= high for line in lines for rise in line.get_ydata())
        assert any("pooled sources" in line.get_label() for line in lines)


def test_one_model_from_python_has_the_numbers_of_the_command(measured, sweep):
    settings = {flag.strip("-").partition("=")[0]: int(flag.partition("=")[2]) for flag in QUICK}
    frame = study.measure(sweep / "irm", device="cpu", **settings)
    rows = [row for row in study.read(measured)[0] if row["run"] == "irm"]
    assert list(frame["worst_rise"]) == pytest.approx([row["worst_rise"] for row in rows], rel=1e-5)
    assert list(frame["trace"]) == pytest.approx([row["trace"] for row in rows], rel=1e-4)
    with pytest.raises(UsageError, match="unknown setting 'roh'"):
        study.measure(sweep / "irm", roh=0.1)


def test_a_single_run_is_measured_into_its_directory_on_several_parts(finished_run, tmp_path):
    folder = shutil.copytree(finished_run, tmp_path / "run")
    assert sharpness.main(["--model", str(folder), *QUICK, "--parts", "in", "out", "--rho", "0.1"]) == 0
    rows, _ = study.read(folder)
    assert [row["part"] for row in rows] == ["in"] * 4 + ["out"] * 4
    assert {(row["rho"], row["parts"]) for row in rows} == {("0.1", "in out")}


def test_the_model_itself_is_left_as_it_is(sweep, measured):
    before = (sweep / "irm" / "model.pkl").read_bytes()
    study.measure(sweep / "irm", samples=2, probes=1, directions=0, lanczos_steps=1, ascent_steps=1, points=3)
    assert (sweep / "irm" / "model.pkl").read_bytes() == before


def test_a_bar_shows_models_and_steps(finished_run, tmp_path, capsys, monkeypatch):
    monkeypatch.setattr(tqdm, "__init__", _visible(tqdm.__init__))
    assert sharpness.main(["--model", str(finished_run), *QUICK, "--output_dir", str(tmp_path)]) == 0
    err = capsys.readouterr().err
    assert "models" in err
    assert f"{finished_run}: 100%" in err or "/3" in err


def _visible(init):
    def shown(self, *args, **kwargs):
        init(self, *args, **kwargs | {"disable": False, "mininterval": 0})

    return shown


@pytest.mark.parametrize(
    ("flags", "message"),
    [
        (["--rho", "0"], "--rho must be more than 0"),
        (["--points", "4"], "--points must be odd"),
        (["--parts", "in", "in"], "--parts names in twice"),
        (["--parts", "uda"], "--parts"),
        (["--samples", "0"], "--samples must be at least 1"),
        (["--parts", "test"], "no samples in the part 'test'"),
    ],
)
def test_bad_usage_is_said_in_one_line(finished_run, tmp_path, capsys, flags, message):
    argv = ["--model", str(finished_run), "--output_dir", str(tmp_path), *flags]
    with pytest.raises(SystemExit) as exit_:
        run_script(sharpness.main, argv)
    assert exit_.value.code == 2
    lines = [line for line in capsys.readouterr().err.splitlines() if line.startswith("error: ")]
    assert len(lines) == 1
    assert message in lines[0]


def test_several_models_need_a_folder_for_their_results(sweep):
    with pytest.raises(UsageError, match="several models need --output_dir"):
        sharpness.main(["--model", str(sweep / "erm"), str(sweep / "irm")])


def test_a_command_without_a_model_says_what_to_give(capsys):
    with pytest.raises(UsageError, match="no model is named; give --model RUN_DIR or --sweep SWEEP_DIR"):
        sharpness.main(["--samples", "4"])
    with pytest.raises(SystemExit):
        sharpness.main(["--modle", "run"])
    assert capsys.readouterr().err == "error: unrecognized arguments: --modle run. Did you mean --model?\n"


def test_a_damaged_model_is_refused_in_one_line(tmp_path, capsys):
    (tmp_path / "model.pkl").write_bytes(b"PK\x03\x04 damaged")
    with pytest.raises(SystemExit) as exit_:
        run_script(sharpness.main, ["--model", str(tmp_path)])
    assert exit_.value.code == 2
    assert capsys.readouterr().err.count("\n") == 1


def test_tables_and_figures_of_the_other_models_are_shown_before_the_error(measured, tmp_path, capsys):
    folder = shutil.copytree(measured, tmp_path / "sweep")
    (folder / "irm" / "model.pkl").write_bytes(b"damaged")
    (folder / "sharpness.png").unlink()
    for _ in range(2):
        with pytest.raises(SystemExit) as exit_:
            run_script(sharpness.main, ["--sweep", str(folder), *QUICK])
        assert exit_.value.code == 1
        out, err = capsys.readouterr()
        assert "Dataset: Debug28, part in: rise of the loss after one ascent step" in out
        assert "ERM" in out
        assert "IRM" not in out
        assert out.endswith(f"Figure: {folder / 'sharpness.png'}\n")
        assert err.splitlines()[-1].startswith("error: 1 of 3 models could not be measured (")
        assert {row["run"] for row in study.read(folder)[0]} == {"erm", "erm1"}


def test_the_error_of_the_only_model_is_the_whole_output(tmp_path, capsys):
    for name in "ab":
        (tmp_path / name).mkdir()
        (tmp_path / name / "model.pkl").write_bytes(b"damaged")
    with pytest.raises(RunError, match="2 of 2 models could not be measured"):
        sharpness.main(["--sweep", str(tmp_path), *QUICK])
    assert capsys.readouterr().out == ""


@pytest.mark.parametrize("table", ["sharpness.csv", "loss_curves.csv"])
def test_a_damaged_number_in_a_table_is_one_line(measured, tmp_path, capsys, table):
    folder = shutil.copytree(measured, tmp_path / "sweep")
    header, *lines = csv.reader((folder / table).read_text().splitlines())
    column = header.index("loss")
    lines[1][column] += "x"
    (folder / table).write_text("".join(map(csv_line, [header, *lines])))
    for main, argv in (
        (sharpness.main, ["--sweep", str(folder), *QUICK]),
        (collect_results.main, ["--input_dir", str(folder), "--sharpness"]),
    ):
        with pytest.raises(SystemExit) as exit_:
            run_script(main, argv)
        assert exit_.value.code == 2
        message = capsys.readouterr().err.splitlines()[-1]
        assert message.startswith(
            f"error: {folder / table} has {lines[1][column]!r} in the column loss, where a number belongs; "
        )


def test_figures_of_several_targets_have_names_of_their_own(tmp_path):
    titles = ["ColoredMNIST, target +90%, part in", "ColoredMNIST, target -90%, part in"]
    assert [path.name for path in figure_files(tmp_path, "sharpness", titles)] == [
        "sharpness_ColoredMNIST_target_+90_part_in.png",
        "sharpness_ColoredMNIST_target_-90_part_in.png",
    ]
    same = figure_files(
        tmp_path, "sharpness", ["a, 1", "A 1", "a 1", "\u4e00", "\u4e01", "x" * 300, "x" * 301]
    )
    names = [path.name for path in same]
    assert names[:5] == [
        *("sharpness_a_1.png", "sharpness_A_1_2.png", "sharpness_a_1_3.png"),
        *("sharpness.png", "sharpness_2.png"),
    ]
    assert len(set(names)) == 7
    assert all(len(name) < 255 for name in names)
    assert figure_files(tmp_path, "sharpness", ["one"]) == [tmp_path / "sharpness.png"]


def test_the_report_has_the_section_where_the_sweep_was_measured(measured, finished_run, tmp_path, capsys):
    page = tmp_path / "page.html"
    arguments = ["--input_dir", str(measured), "--selection", "iid"]
    assert collect_results.main([*arguments, "--sharpness"]) == 0
    assert "largest eigenvalue of the Hessian" in capsys.readouterr().out
    assert collect_results.main([*arguments, "--html", str(page)]) == 0
    text = page.read_text()
    assert "Sharpness, domain by domain" in text
    assert 'aria-label="Loss around the models: Debug28, target ' in text
    fewer = tmp_path / "fewer"
    shutil.copytree(measured, fewer)
    shutil.rmtree(fewer / "irm")
    capsys.readouterr()
    assert collect_results.main(["--input_dir", str(fewer), "--selection", "iid", "--sharpness"]) == 0
    out = capsys.readouterr().out
    assert "Note: sharpness.csv also has 1 runs that are no longer there; they are left out." in out
    assert "pooled" in out
    assert "IRM" not in out
    other = tmp_path / "other"
    shutil.copytree(finished_run, other / "erm")
    assert collect_results.main(["--input_dir", str(other), "--selection", "iid", "--html", str(page)]) == 0
    assert "Sharpness, domain by domain" not in page.read_text()
    capsys.readouterr()
    assert collect_results.main(["--input_dir", str(other), "--selection", "iid", "--sharpness"]) == 0
    assert "No sharpness was measured" in capsys.readouterr().out

"""Box plots: valid PNG files, and the content of their panels."""

from __future__ import annotations

import numpy as np
import pytest
from matplotlib.collections import LineCollection
from PIL import Image

from domainbed.errors import RunError, UsageError
from domainbed.model_selection import METHODS
from domainbed.results.accuracies import compute_accuracies
from domainbed.results.plots import DPI
from domainbed_gs.report.box_plots import box_plot, file_names, target_panel, write_box_plots
from domainbed_gs.report.comparison import compare_all

BETTER = [0.51, 0.52, 0.53, 0.54, 0.55, 0.56, 0.57, 0.58]


@pytest.fixture
def report(sweep):
    def make(accuracies, **args):
        return compare_all(compute_accuracies(sweep(accuracies, **args), METHODS["iccv2021"]), "ERM")

    return make


@pytest.fixture
def two_targets(report):
    return report({"ERM": {0: [0.5] * 8, 1: BETTER}, "AgrSum": {0: BETTER, 1: [0.9] + BETTER[:7]}})


def test_png_has_the_colours_of_both_boxes(two_targets, tmp_path):
    (path,) = write_box_plots(two_targets, tmp_path / "deep" / "figures")
    assert path.name == "EmojiStyles.png"
    with Image.open(path) as image:
        assert image.format == "PNG"
        assert image.info["dpi"] == pytest.approx((DPI, DPI), abs=0.1)
        pixels = np.asarray(image.convert("RGB")).reshape(-1, 3).astype(int)
    red, green, blue = pixels.T
    coloured = abs(red - blue) > 40
    assert 0.001 < coloured.mean() < 0.5  # the boxes of AgrSum
    assert (abs(red - green) + abs(green - blue) < 6).mean() > 0.5  # paper, ink and the grey baseline


def test_panels_show_targets_methods_trials_and_stars(two_targets):
    figure = box_plot("EmojiStyles", two_targets)
    flat, gradient = figure.axes
    assert [axis.get_title() for axis in figure.axes] == ["Flat", "Gradient"]
    assert [label.get_text() for label in flat.get_xticklabels()] == ["ERM", "AgrSum"]
    assert flat.get_ylabel() == "target accuracy (%)"
    dots = flat.collections[1].get_offsets()
    np.testing.assert_allclose(dots[:, 1], [100 * accuracy for accuracy in BETTER])
    assert len(set(np.round(dots[:, 0], 6))) == 8  # side by side
    assert [(text.get_text(), text.xy[0]) for text in flat.texts] == [("*", 2)]
    assert not gradient.texts


def test_few_trials_are_dots_with_their_median(report):
    few = report({"ERM": {0: BETTER}, "AgrSum": {0: BETTER[:7]}, "PCGrad": {0: [0.6]}})
    (axis,) = box_plot("EmojiStyles", few).axes
    assert len(axis.patches) == 1  # the box of ERM
    medians = [line.get_segments()[0][0][1] for line in axis.collections if isinstance(line, LineCollection)]
    assert medians == pytest.approx([54, 60])
    (caption,) = (text.get_text() for text in axis.figure.texts if "dot" in text.get_text())
    assert "box: quartiles" in caption
    assert "line: median, of fewer than 8 trials" in caption
    assert "*: Holm p < 0.05 against ERM" in caption
    panel = target_panel("Flat", few.of("EmojiStyles"))
    assert len(panel.axes[0].patches) == 1


def test_the_legend_names_only_what_is_drawn(report):
    (axis,) = box_plot("EmojiStyles", report({"ERM": {0: BETTER}, "AgrSum": {0: BETTER}})).axes
    assert not any("line: median" in text.get_text() for text in axis.figure.texts)
    (axis,) = box_plot("EmojiStyles", report({"ERM": {0: [0.5]}, "AgrSum": {0: [0.6]}})).axes
    assert not any("quartiles" in text.get_text() for text in axis.figure.texts)


def test_many_targets_and_methods_wrap_into_rows(report):
    names = ("ERM", "AgrSum", "AgrRand", "PCGrad", "IRM", "MLDG", "Mixup", "GroupDRO", "SagNet")
    wide = report({name: dict.fromkeys(range(5), BETTER) for name in names}, dataset="SVIRO", environments=10)
    figure = box_plot("SVIRO", wide)
    assert figure.get_size_inches()[0] < 13
    assert [axis.get_title() for axis in figure.axes if axis.axison] == [
        "aclass",
        "escape",
        "hilux",
        "i3",
        "lexus",
    ]


def test_a_method_without_trials_leaves_its_position_empty(report, tmp_path):
    gap = report({"ERM": {0: BETTER, 1: BETTER}, "PCGrad": {0: [0.6], 1: []}, "AgrSum": {0: [], 1: BETTER}})
    assert write_box_plots(gap, tmp_path)[0].is_file()
    labels = [label.get_text() for label in box_plot("EmojiStyles", gap).axes[1].get_xticklabels()]
    assert labels == ["ERM", "AgrSum", "PCGrad"]


def test_file_names_are_safe_and_distinct():
    names = file_names(["PACS", "../data/my photos", "data/my_photos", "/", "data my/photos", "PACS_2"])
    assert names[:3] == ["PACS.png", "data_my_photos.png", "data_my_photos_2.png"]
    assert len(set(names)) == 6
    assert file_names(["x_2", "x", "x!"]) == ["x_2.png", "x.png", "x_3.png"]
    assert not any("/" in name or name.startswith(".") for name in names)


def test_a_folder_that_is_a_file_or_cannot_be_created(two_targets, tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.raises(UsageError, match="it is a file; name a folder instead"):
        write_box_plots(two_targets, tmp_path / "file")
    with pytest.raises(RunError, match="cannot write figures to"):
        write_box_plots(two_targets, tmp_path / ("x" * 300))


def test_without_matplotlib_the_error_says_what_to_install(two_targets, tmp_path, without_matplotlib):
    with pytest.raises(UsageError, match=r"pip install 'domainbed-gs\[plots\]'"):
        write_box_plots(two_targets, tmp_path)

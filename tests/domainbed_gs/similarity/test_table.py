"""Table of similarities, its summary and its figure."""

from __future__ import annotations

import io

import numpy as np
import pytest
from PIL import Image

from domainbed.errors import RunError
from domainbed.results.plots import png
from domainbed_gs.similarity import figure, summary
from domainbed_gs.similarity.table import NAME, TABLE


def row(step, **values):
    numbers = dict.fromkeys(TABLE.header, 0.0) | {"skipped": 0, "samples": 12, "consensus": 0.3, "zeros": 0.3}
    numbers |= {"within_zeros": 0.1, "between_zeros": 0.2}
    numbers |= {"within_cosine": 0.5 + 0.01 * step, "between_cosine": 0.4, "within_agreement": 0.6}
    return numbers | {"between_agreement": 0.55, "step": step, "class": "a, b"} | values


@pytest.fixture
def path(tmp_path):
    return tmp_path / NAME


def test_rows_are_read_as_written(path):
    rows = [row(0), row(1, within_cosine=float("nan")), row(2, between_cosine=1 / 3)]
    for each in rows:
        TABLE.append(path, each)
    np.testing.assert_equal(TABLE.read(path), rows)


def test_an_incomplete_line_is_ignored_and_rows_can_be_dropped(path):
    for step in range(5):
        TABLE.append(path, row(step))
    path.write_text(path.read_text()[:-20])
    assert [each["step"] for each in TABLE.read(path)] == [0, 1, 2, 3]
    TABLE.keep_before(path, 2)
    assert [each["step"] for each in TABLE.read(path)] == [0, 1]
    TABLE.append(path, row(2))
    assert [each["step"] for each in TABLE.read(path)] == [0, 1, 2]
    TABLE.keep_before(path, 0)
    assert TABLE.read(path) == []


def test_a_missing_or_invalid_table_is_an_error(path):
    with pytest.raises(RunError, match="No such file"):
        TABLE.read(path)
    path.write_text("step,loss\n1,2\n")
    with pytest.raises(RunError, match="is not a table of similarities"):
        TABLE.read(path)


def test_window_means_and_their_errors():
    rows = [row(step, within_cosine=value) for step, value in enumerate([1.0, 3.0, 5.0, float("nan"), 7.0])]
    found = summary.window_means(rows, "within_cosine", windows=3)
    np.testing.assert_allclose(found.steps, [0.5, 2.5, 4])
    np.testing.assert_allclose(found.means, [2, 5, 7])
    np.testing.assert_allclose(found.errors, [1, np.nan, np.nan])
    assert len(summary.window_means([row(0)], "consensus").means) == 1


def test_the_summary_has_means_and_the_paired_difference():
    lines = summary.describe([row(0), row(2), row(4, skipped=3)], environments=3)
    assert lines == [
        "3 measurements. The mean cosine is larger within environments than between environments in 100 % of "
        "them; mean difference 0.1200 +/- 0.0115.",
        "  within environments: cosine 0.5200 +/- 0.0115, sign agreement 0.6000 +/- 0.0000 "
        "(by chance 0.4500)",
        " between environments: cosine 0.4000 +/- 0.0000, sign agreement 0.5500 +/- 0.0000 "
        "(by chance 0.4000)",
        "consensus of the environments' signs: 0.3000 +/- 0.0000 (by chance 0.1750, since 30.0 % of "
        "the components are 0 in an environment)",
        "Samples with a zero gradient, left out: 3.",
    ]


def test_the_figure_shows_all_similarities():
    rows = [row(step) for step in range(6)]
    cosines, signs = figure.similarity_figure(rows, "PACS, target A", 3).axes
    assert [line.get_label() for line in cosines.get_lines()[:2]] == [
        "within environments",
        "between environments",
    ]
    within = cosines.get_lines()[0].get_ydata()
    np.testing.assert_allclose(within, [0.5 + 0.01 * step for step in range(6)])
    assert [text.get_text() for text in signs.get_legend().get_texts()][2] == "means of the 3 environments"
    by_chance = [line.get_ydata()[0] for line in signs.get_lines()[3:]]
    np.testing.assert_allclose(by_chance, [0.45, 0.4, 0.175])
    with Image.open(io.BytesIO(png(figure.similarity_figure(rows, "PACS, target A", 3)))) as image:
        assert image.format == "PNG"

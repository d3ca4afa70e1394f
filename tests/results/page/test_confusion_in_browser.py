"""Confusion matrices of a small real sweep in a real browser."""

import pytest

import domainbed
from domainbed.scripts import collect_results

pytestmark = pytest.mark.slow

PHONE = {"width": 360, "height": 740, "deviceScaleFactor": 2, "mobile": True}
DESK = {"width": 1280, "height": 900, "deviceScaleFactor": 1, "mobile": False}


@pytest.fixture(scope="module")
def matrices_page(tmp_path_factory):
    """A page of two methods with two trials each, which saved their predictions."""
    folder = tmp_path_factory.mktemp("sweep")
    settings = {"dataset": "EmojiStyles", "steps": 20, "test_envs": [1], "save_predictions": "selected"}
    hparams = {"batch_size": 8, "featurizer": "small_cnn", "lr": 0.003}
    for algorithm in ("ERM", "AgrSum"):
        for trial in range(2):
            own = {"trial_seed": trial, "seed": trial, "output_dir": folder / f"{algorithm}{trial}"}
            domainbed.train(algorithm=algorithm, hparams=hparams, **settings, **own)
    page = folder / "report.html"
    collect_results.main(["--input_dir", str(folder), "--selection", "iid", "--html", str(page)])
    return page


@pytest.mark.parametrize(("size", "columns"), [(PHONE, 1), (DESK, 2)], ids=["phone", "desk"])
@pytest.mark.parametrize("dark", [False, True], ids=["light", "dark"])
def test_matrices_stand_side_by_side_if_there_is_room_and_each_fits(
    look, unfold, matrices_page, size, columns, dark
):
    page = unfold(look(matrices_page, size, dark))
    boxes = page.execute_script(
        "return [...document.querySelectorAll('#confusion .matrix')].map(node => ["
        "Math.round(node.getBoundingClientRect().left), node.scrollWidth <= node.clientWidth,"
        "node.querySelectorAll('tbody td').length])"
    )
    assert len(boxes) == 2
    assert len({left for left, _, _ in boxes}) == columns
    assert all(number == 49 for _, _, number in boxes)
    assert all(fits for _, fits, _ in boxes) or size is PHONE
    assert page.execute_script("return document.documentElement.scrollWidth") <= size["width"]


def test_rows_are_shares_of_each_class_and_every_share_has_a_shade_of_its_own(look, unfold, matrices_page):
    page = unfold(look(matrices_page, DESK))
    rows = page.execute_script(
        "const rows = [...document.querySelector('#confusion .matrix tbody').rows];"
        "const shown = cell => [cell.textContent, getComputedStyle(cell).backgroundColor];"
        "return rows.map(row => [...row.cells].slice(1).map(shown))"
    )
    for row in rows:
        assert 97 <= sum(int(text) for text, _ in row) <= 103  # of rounded percents
    by_share = {int(text): colour for row in rows for text, colour in row}
    assert len(set(by_share.values())) == len(by_share) > 5


def test_long_names_of_classes_are_upright_in_columns_and_the_matrix_copies(look, unfold, matrices_page):
    page = unfold(look(matrices_page, DESK))
    width, height = page.execute_script(
        "const box = document.querySelectorAll('#confusion .matrix thead span')[1].getBoundingClientRect();"
        "return [box.width, box.height]"
    )
    assert height > 2 * width
    buttons = page.execute_script("return document.querySelectorAll('#confusion button.copy').length")
    assert buttons == 2

"""Pages in a real browser: they fit a phone, tables sort and copy, folded parts open, and all is printed."""

from __future__ import annotations

import base64
import shutil
import subprocess

import pytest

pytestmark = pytest.mark.slow

PHONE = {"width": 360, "height": 740, "deviceScaleFactor": 2, "mobile": True}
DESK = {"width": 1280, "height": 900, "deviceScaleFactor": 1, "mobile": False}

GAP = 2
"""Index of the column with a missing number in the first table."""


@pytest.fixture
def at(look, synthetic_page):
    """`at(size)`: the page with all parts in a window of this size, in CSS pixels."""
    return lambda size: look(synthetic_page, size)


@pytest.mark.parametrize("size", [PHONE, DESK], ids=["phone", "desk"])
def test_nothing_is_wider_than_the_screen(at, unfold, size):
    page = unfold(at(size))
    width = page.execute_script("return document.documentElement.scrollWidth")
    assert width <= size["width"]
    wide = page.execute_script(
        "return [...document.querySelectorAll('body *')].filter(node => !node.closest('.table, pre, svg')"
        " && node.getBoundingClientRect().right > innerWidth + 1).map(node => node.outerHTML.slice(0, 80))"
    )
    assert wide == []


def test_text_of_figures_is_legible_on_a_phone(at, unfold):
    page = unfold(at(PHONE))
    sizes = page.execute_script(
        "return [...document.querySelectorAll('svg text')].map(node => node.getBoundingClientRect().height)"
    )
    assert len(sizes) > 300
    assert min(sizes) >= 8


def test_the_first_click_sorts_in_descending_order_and_the_second_in_ascending_order(at):
    page = at(PHONE)
    columns = (
        "const table = document.querySelector('#results table');"
        "return [...table.tBodies[0].rows].map(row => row.cells[arguments[0]].textContent)"
    )
    before = page.execute_script(columns, GAP)
    button = "document.querySelector('#results table').tHead.rows[0].cells[arguments[0]].firstChild.click()"
    number = {text: -1e9 if text == "X" else float(text.split()[0]) for text in before}
    page.execute_script(button, GAP)
    assert page.execute_script(columns, GAP) == sorted(before, key=number.get, reverse=True)
    assert before.count("X") == 1
    page.execute_script(button, GAP)
    upwards = page.execute_script(columns, GAP)
    assert upwards[:-1] == sorted([text for text in before if text != "X"], key=number.get)
    assert upwards[-1] == "X"  # missing numbers stay last
    page.execute_script(button, 0)
    assert page.execute_script(columns, 0) == ["AgrSum", "ERM", "Mixup", "PCGrad"]
    states = page.execute_script(
        "return [...document.querySelectorAll('[aria-sort]')].map(node => node.textContent)"
    )
    assert states == ["Algorithm"]


def test_rows_are_sorted_within_their_dataset(at):
    page = at(DESK)
    rows = (
        "return [...document.querySelector('.forest').tBodies].map("
        "body => [...body.rows].map(row => row.cells[0].textContent))"
    )
    page.execute_script("document.querySelector('.forest thead button').click()")
    methods = ["AgrSum", "Mixup", "PCGrad"]
    assert page.execute_script(rows) == [["VLCS", *methods], ["PACS", *methods]]


def test_links_of_the_contents_open_their_part(at):
    page = at(PHONE)
    names = [
        "overview", "results", "paired", "ranks", "gradients",
        "budget", "curves", "sensitivity", "gaps", "repeat",
    ]  # fmt: skip
    found = page.execute_script("return [...document.querySelectorAll('nav a')].map(node => node.hash)")
    assert set(found) >= {f"#{name}" for name in names}
    assert (
        page.execute_script("return document.querySelectorAll('#parts > section > details[open]').length")
        == 0
    )
    for name in found:
        page.find_element("css selector", ".menu summary").click()
        page.find_element("css selector", f'nav a[href="{name}"]').click()
        opened, top, menu = page.execute_script(
            "const part = document.querySelector(arguments[0]);"
            "return [part.querySelector('details').open, part.getBoundingClientRect().top,"
            " document.querySelector('.menu').open]",
            name,
        )
        assert opened
        assert -1 <= top < PHONE["height"]
        assert not menu
        page.execute_script("scrollTo(0, 0)")


def test_an_address_with_a_fragment_opens_the_part(at, look, synthetic_page):
    page = look(synthetic_page, PHONE)
    page.get(f"{synthetic_page.as_uri()}#gaps")
    assert page.execute_script("return document.querySelector('#gaps > details').open")


def pasted(page):
    """What the clipboard holds."""
    from selenium.webdriver import ActionChains, Keys

    page.execute_script(
        "const field = document.createElement('textarea'); field.id = 'paste';"
        "document.body.prepend(field); field.focus()"
    )
    ActionChains(page).key_down(Keys.CONTROL).send_keys("v").key_up(Keys.CONTROL).perform()
    text = page.execute_script("return document.getElementById('paste').value")
    page.execute_script("document.getElementById('paste').remove()")
    return [line.split("\t") for line in text.splitlines()]


@pytest.mark.parametrize("allowed", [True, False], ids=["clipboard", "text field"])
def test_tables_copy_as_tab_separated_values(at, unfold, allowed):
    page = unfold(at(DESK))
    if not allowed:
        page.execute_script("navigator.clipboard.writeText = () => Promise.reject(new Error('denied'))")
    buttons = page.find_elements("css selector", "button.copy")
    assert len(buttons) == page.execute_script("return document.querySelectorAll('table').length")
    label = "Copy: Dataset: VLCS, model selection method: training-domain validation set"
    (button,) = [each for each in buttons if each.get_attribute("aria-label") == label]
    button.click()
    page.execute_async_script("setTimeout(arguments[0], 100)")
    assert button.text == "Copied"
    head, *rows = pasted(page)
    assert head == ["Algorithm", "C", "C ±", "L", "L ±", "S", "S ±", "V", "V ±", "Avg"]
    assert [row[0] for row in rows] == ["ERM", "Mixup", "AgrSum", "PCGrad"]
    assert all(len(row) == len(head) for row in rows)
    assert [row[1:3] for row in rows] == page.execute_script(
        "return [...document.querySelector('#results table').tBodies[0].rows]"
        ".map(row => row.cells[1].textContent.split(' ± '))"
    )
    missing = rows[1]
    assert missing[3:5] == ["X", ""]


def test_the_copied_forest_plot_has_numbers_and_no_drawing(at):
    page = at(DESK)
    page.find_element("css selector", ".forest + .titled .copy").click()
    page.execute_async_script("setTimeout(arguments[0], 100)")
    head, *rows = pasted(page)
    assert head == [
        "Method", "Shift", "Simultaneous 95 % interval", "p (Holm)", "Better in trials", "Verdict",
    ]  # fmt: skip
    assert len(rows) == 2 + 6
    numbers = [row[1] for row in rows if row[0] not in ("VLCS", "PACS")]
    assert all(float(number) == 0 or number[0] in "+-" for number in numbers if number != "-")


def test_folded_parts_are_printed(at, tmp_path):
    page = at(PHONE)
    pdf = base64.b64decode(page.execute_cdp_cmd("Page.printToPDF", {})["data"])
    assert pdf.startswith(b"%PDF")
    (tmp_path / "page.pdf").write_bytes(pdf)
    still = "return document.querySelectorAll('#parts > section > details[open]').length"
    assert page.execute_script(still) == 0
    if shutil.which("pdftotext") is None:
        pytest.skip("no pdftotext here (Debian: poppler-utils)")
    done = subprocess.run(
        ["pdftotext", "-layout", tmp_path / "page.pdf", "-"], capture_output=True, text=True, check=True
    )
    assert "resnet18" in done.stdout  # a hyper-parameter, in a folded part
    assert "training diverged" in done.stdout
    assert "domainbed.scripts.train" not in done.stdout
    assert "Figure data" not in done.stdout

"""The first screen of a real study's page, as a reader at a desk or with a phone sees it."""

from __future__ import annotations

from importlib.resources import files

import pytest

pytestmark = pytest.mark.slow

DESK = {"width": 1280, "height": 800, "deviceScaleFactor": 1, "mobile": False}
PHONE = {"width": 390, "height": 844, "deviceScaleFactor": 2, "mobile": True}
SIZES = pytest.mark.parametrize("size", [DESK, PHONE], ids=["desk", "phone"])
SCHEMES = pytest.mark.parametrize("dark", [False, True], ids=["light", "dark"])

LIMIT = 2_000_000
"""Largest page, in bytes."""

BOXES = """
return [...document.querySelectorAll(arguments[0])].map(node => {
  const box = node.getBoundingClientRect();
  return [box.left, box.top, box.right, box.bottom];
})
"""

NUMBERS = """
const walker = document.createTreeWalker(document.body, NodeFilter.SHOW_TEXT);
const outside = [];
let seen = 0;
while (walker.nextNode()) {
  const text = walker.currentNode;
  if (!/\\d/.test(text.data) || text.parentElement.closest('script, style, svg')) continue;
  if (!text.parentElement.checkVisibility()) continue;
  const range = document.createRange();
  range.selectNodeContents(text);
  for (const box of range.getClientRects()) {
    seen += 1;
    if (box.left < -0.5 || box.right > innerWidth + 0.5) outside.push(text.data);
  }
}
return [seen, outside.slice(0, 20)];
"""


@SIZES
def test_the_answer_its_limits_and_the_plot_are_on_the_first_screen(look, study_page, size):
    page = look(study_page, size)
    places = {
        selector: page.execute_script(BOXES, selector)
        for selector in (".kicker", "h1", ".facts li", ".forest .ends", ".forest tbody tr")
    }
    assert all(places.values())
    rows = places.pop(".forest tbody tr")
    assert len(rows) == 11
    shown = rows if size is DESK else rows[:9]
    for box in [*shown, *(box for boxes in places.values() for box in boxes)]:
        left, top, right, bottom = box
        assert left >= 0
        assert top >= 0
        assert right <= size["width"]
        assert bottom <= size["height"]
    order = [places[name][0][1] for name in (".kicker", "h1", ".facts li", ".forest .ends")]
    assert order == sorted(order)
    text = page.execute_script("return document.querySelector('#answer').innerText")
    assert page.execute_script("return document.querySelector('h1').innerText").startswith(
        "No method beats ERM."
    )
    for words in (
        "960 of 960 runs",
        "20 paired trials",
        "4 held-out environments",
        "80 % power",
        "a split for each trial",
    ):
        assert words in text


def test_strips_are_aligned_with_the_axis_and_as_wide_as_the_phone(look, study_page):
    page = look(study_page, PHONE)
    ((left, _, right, _),) = page.execute_script(BOXES, ".forest .ends")
    strips = page.execute_script(BOXES, ".forest .strip[role=img]")
    assert {(round(box[0]), round(box[2])) for box in strips} == {(round(left), round(right))}
    assert right - left > 0.9 * PHONE["width"]
    assert all(box[3] - box[1] >= 18 for box in strips)


@pytest.mark.parametrize("width", [320, 390, 820])
def test_no_number_is_off_the_screen(look, unfold, study_page, width):
    page = look(study_page, PHONE | {"width": width})
    assert page.execute_script("return document.documentElement.scrollWidth") <= width
    assert page.execute_script(NUMBERS)[1] == []
    if width < 640:  # on larger screens, wide tables of folded parts scroll
        seen, outside = unfold(page).execute_script(NUMBERS)
        assert seen > 3_000
        assert outside == []


def test_accuracies_and_differences_stand_side_by_side_on_a_desk(look, study_page):
    one, other = look(study_page, DESK).execute_script(BOXES, ".side-by-side > div")
    assert one[1] == other[1]
    assert one[2] < other[0]
    one, other = look(study_page, PHONE).execute_script(BOXES, ".side-by-side > div")
    assert one[3] <= other[1]


@SCHEMES
def test_the_page_follows_the_colours_of_the_system(look, study_page, dark):
    page = look(study_page, DESK, dark)
    paper, ink, text = page.execute_script(
        "const style = getComputedStyle(document.body);"
        "const text = getComputedStyle(document.querySelector('svg text'));"
        "return [style.backgroundColor, style.color, text.fill]"
    )
    levels = [sum(map(int, colour[4:-1].split(","))) / 3 for colour in (paper, ink, text)]
    assert levels[0] < 40 if dark else levels[0] == 255
    assert all(level > 200 if dark else level < 60 for level in levels[1:])


@SIZES
@SCHEMES
@pytest.mark.parametrize("name", ["study_page", "synthetic_page"])
def test_axe_finds_nothing(look, unfold, request, name, size, dark):
    axe = pytest.importorskip("axe_core_python", reason="axe-core-python is not installed (extra dev)")
    page = look(request.getfixturevalue(name), size, dark)
    if name == "synthetic_page":
        unfold(page)  # the real one is large, and has the same parts
    page.execute_script((files(axe) / "axe.min.js").read_text(encoding="utf-8"))
    found = page.execute_async_script(
        "axe.run({resultTypes: ['violations']}).then(arguments[arguments.length - 1])"
    )
    violations = [
        (each["id"], node["html"][:120], node["failureSummary"])
        for each in found["violations"]
        for node in each["nodes"]
    ]
    assert violations == []


def test_the_keyboard_reaches_everything(look, study_page):
    from selenium.webdriver import ActionChains, Keys

    page = look(study_page, DESK)

    def press(*keys):
        ActionChains(page).send_keys(*keys).perform()
        return page.switch_to.active_element

    skip = press(Keys.TAB)
    assert skip.text == "Skip to all results"
    assert page.execute_script("return arguments[0].getBoundingClientRect().left", skip) >= 0
    contents = press(Keys.TAB)
    assert contents.text == "Contents"
    outline = page.execute_script("return getComputedStyle(arguments[0]).outlineStyle", contents)
    assert outline == "solid"
    press(Keys.ENTER)
    link = press(Keys.TAB)
    assert link.get_attribute("hash") == "#overview"
    press(Keys.ESCAPE)
    assert page.switch_to.active_element == contents
    press(Keys.TAB)  # the first head of a column
    press(Keys.ENTER)
    assert page.execute_script("return document.querySelector('[aria-sort]').innerText") == "Method"


def test_nothing_moves(look, study_page):
    page = look(study_page, DESK)
    moving = page.execute_script(
        "return [...document.querySelectorAll('*')].filter(node => {"
        "  const style = getComputedStyle(node);"
        "  return style.animationName !== 'none' || parseFloat(style.transitionDuration) > 0"
        "    || style.scrollBehavior !== 'auto'"
        "}).length"
    )
    assert moving == 0


def test_the_page_is_one_small_file(study_page):
    text = study_page.read_text(encoding="utf-8")
    assert len(text.encode()) < LIMIT
    assert "http" not in text.replace("http-equiv", "")

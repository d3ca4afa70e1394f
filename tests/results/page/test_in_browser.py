"""The page in a real browser: no script errors, it fits a phone, its tables sort, and it prints."""

from __future__ import annotations

import base64
import json
import shutil
import subprocess

import pytest

from domainbed.scripts import collect_results

pytestmark = pytest.mark.slow

FLAGS = (
    "--headless",
    "--no-sandbox",
    "--disable-gpu",
    "--disable-quic",
    "--no-first-run",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
)
PHONE = {"width": 360, "height": 740, "deviceScaleFactor": 2, "mobile": True}
DESK = {"width": 1280, "height": 900, "deviceScaleFactor": 1, "mobile": False}
DATASETS = ("VLCS", "PACS")


GAP = 2
"""Index of the column with a missing number in the first table."""


@pytest.fixture(scope="module")
def browser(tmp_path_factory):
    """Headless Chromium, controlled by its chromedriver."""
    chromium, driver = shutil.which("chromium"), shutil.which("chromedriver")
    if chromium is None or driver is None:
        pytest.skip("no Chromium with its chromedriver here (Debian: chromium, chromium-driver)")
    webdriver = pytest.importorskip("selenium.webdriver", reason="selenium is not installed (extra dev)")
    options = webdriver.ChromeOptions()
    options.binary_location = chromium
    for flag in (*FLAGS, f"--user-data-dir={tmp_path_factory.mktemp('profile')}"):
        options.add_argument(flag)
    options.set_capability("goog:loggingPrefs", {"browser": "ALL"})
    service = webdriver.ChromeService(driver)
    chrome = webdriver.Chrome(options=options, service=service)
    yield chrome
    chrome.quit()


@pytest.fixture(scope="module")
def address(synthetic, tmp_path_factory):
    """Address of a page with all parts: two datasets, four algorithms, agreement, gaps, a failed run."""
    folder = tmp_path_factory.mktemp("sweep")
    for dataset in DATASETS:
        for shift, algorithm in enumerate(("ERM", "AgrSum", "PCGrad", "Mixup")):
            sweep = synthetic(dataset=dataset, algorithm=algorithm)
            sweep.runs = {key: (accs + shift) / (shift + 1) for key, accs in sweep.runs.items()}
            if algorithm == "Mixup":
                sweep.drop_some()
            sweep.write(folder)
    for results in folder.glob("*/results.jsonl"):
        records = [json.loads(line) for line in results.read_text().splitlines()]
        more = {"agreement": 0.3, "cosine": 0.1}
        lines = [record | more if record["args"]["algorithm"] != "ERM" else record for record in records]
        results.write_text("".join(json.dumps(line) + "\n" for line in lines))
    (folder / "failed").mkdir()
    reason = {"error": "loss is nan at step 40: training diverged; try a smaller lr", "exit_status": 1}
    (folder / "failed" / "failed.json").write_text(json.dumps(reason))
    args = {"dataset": "VLCS", "algorithm": "ERM", "test_envs": [0], "hparams_seed": 0, "trial_seed": 0}
    (folder / "sweep.json").write_text(json.dumps({"jobs": {"failed": args}, "selection": []}))
    page = folder / "report.html"
    collect_results.main(["--input_dir", str(folder), "--html", str(page)])
    return page.as_uri()


@pytest.fixture
def at(browser, address):
    """`at(size)`: the page in a window of this size, in CSS pixels. The test fails on a script error."""

    def opened(size):
        browser.execute_cdp_cmd("Emulation.setDeviceMetricsOverride", size)
        browser.get(address)
        return browser

    yield opened
    assert browser.get_log("browser") == []


@pytest.mark.parametrize("size", [PHONE, DESK], ids=["phone", "desk"])
def test_nothing_is_wider_than_the_screen(at, size):
    page = at(size)
    width = page.execute_script("return document.documentElement.scrollWidth")
    assert width <= size["width"]
    wide = page.execute_script(
        "return [...document.querySelectorAll('body *')].filter(node => !node.closest('.table, pre, svg')"
        " && node.getBoundingClientRect().right > innerWidth + 1).map(node => node.outerHTML.slice(0, 80))"
    )
    assert wide == []


def test_text_of_figures_is_legible_on_a_phone(at):
    page = at(PHONE)
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


def test_every_link_of_the_contents_has_a_target(at):
    page = at(PHONE)
    names = ["overview", "results", "paired", "ranks", "gradients", "curves", "sensitivity", "gaps", "repeat"]
    assert page.execute_script("return [...document.querySelectorAll('nav a')].map(node => node.hash)") == [
        f"#{name}" for name in names
    ]
    assert all(page.execute_script(f"return document.getElementById('{name}') !== null") for name in names)


def test_folded_parts_are_printed(at, tmp_path):
    page = at(PHONE)
    pdf = base64.b64decode(page.execute_cdp_cmd("Page.printToPDF", {})["data"])
    assert pdf.startswith(b"%PDF")
    (tmp_path / "page.pdf").write_bytes(pdf)
    if shutil.which("pdftotext") is None:
        pytest.skip("no pdftotext here (Debian: poppler-utils)")
    done = subprocess.run(
        ["pdftotext", "-layout", tmp_path / "page.pdf", "-"], capture_output=True, text=True, check=True
    )
    assert "resnet18" in done.stdout  # a hyper-parameter, in a folded part
    assert "training diverged" in done.stdout
    assert "domainbed.scripts.train" not in done.stdout

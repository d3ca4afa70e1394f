"""A real browser, and pages to look at with it."""

from __future__ import annotations

import json
import shutil
import tarfile
from pathlib import Path

import pytest

from domainbed.scripts import collect_results

ROOT = Path(__file__).parents[3]

FLAGS = (
    "--headless",
    "--no-sandbox",
    "--disable-gpu",
    "--disable-quic",
    "--no-first-run",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
    "--hide-scrollbars",
)
DATASETS = ("VLCS", "PACS")


@pytest.fixture(scope="session")
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
    chrome.set_script_timeout(300)
    yield chrome
    chrome.quit()


@pytest.fixture(scope="session")
def synthetic_page(synthetic, tmp_path_factory):
    """A page with all parts: two datasets, four algorithms, agreement, gaps, a failed run."""
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
    return page


@pytest.fixture(scope="session")
def study_page(tmp_path_factory):
    """The page of a real study: the records of docs/results.md."""
    folder = tmp_path_factory.mktemp("study")
    with tarfile.open(ROOT / "docs" / "emoji_styles.tar.xz") as archive:
        archive.extractall(folder, filter="data")
    page = folder / "report.html"
    sweep = folder / "runs" / "emoji_styles"
    collect_results.main(["--input_dir", str(sweep), "--html", str(page)])
    return page


@pytest.fixture
def look(browser):
    """`look(page, size, dark=False)`: the page in a window of this size. The test fails on a script error."""

    def opened(page, size, dark=False):
        scheme = {"name": "prefers-color-scheme", "value": "dark" if dark else "light"}
        browser.execute_cdp_cmd("Emulation.setDeviceMetricsOverride", size)
        browser.execute_cdp_cmd("Emulation.setEmulatedMedia", {"media": "", "features": [scheme]})
        browser.get("about:blank")  # else an address with a fragment would not load the page again
        browser.get(page.as_uri())
        return browser

    yield opened
    assert browser.get_log("browser") == []


@pytest.fixture
def unfold():
    """`unfold(browser)`: open everything that is folded, except the menu."""

    def unfolded(browser):
        browser.execute_script(
            "for (const each of document.querySelectorAll('details:not(.menu)')) each.open = true"
        )
        # Tables are fitted in the event that follows.
        browser.execute_async_script("requestAnimationFrame(() => requestAnimationFrame(arguments[0]))")
        return browser

    return unfolded

from pathlib import Path

from domainbed.sweep.settings_page import page
from domainbed.training.config import SETTINGS

PAGE = Path(__file__).parents[2] / "docs" / "settings.md"


def test_the_page_of_settings_is_current():
    """Otherwise: `python -m domainbed.sweep.settings_page > docs/settings.md`."""
    assert PAGE.read_text(encoding="utf-8") == page()


def test_it_has_a_row_for_each_setting():
    rows = [line for line in page().splitlines() if line.startswith("| `")]
    assert [line.split("`")[1] for line in rows][: len(SETTINGS)] == list(SETTINGS)
    assert "| `grouping` | `domain` | `domain`, `single_domain`, `pooled` |" in page()
    assert "| `holdout_fraction` | `0.2` | float, at least 0, below 1 |" in page()

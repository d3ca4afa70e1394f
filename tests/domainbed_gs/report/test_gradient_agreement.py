"""`collect_results --gradients`, in text and on a page."""

from __future__ import annotations

import re

import pytest


@pytest.fixture
def records(sweep):
    """AgrSum logs agreement 0.5, then 0.3; ERM nothing."""
    found = []
    for step, agreement in ((0, 0.5), (10, 0.4), (20, 0.3)):
        found += sweep({"ERM": {0: [0.5, 0.6]}}, step=step)
        surgery = sweep({"AgrSum": {0: [0.5, 0.6]}}, step=step)
        shares = zip(surgery, (agreement - 0.1, agreement + 0.1), strict=True)
        found += [
            record | {"agreement": share, "cosine": share / 2, "zeros": 0.2} for record, share in shares
        ]
    return found


def test_first_middle_and_last_record_with_errors(records, collect):
    out = collect(records, "--gradients").out
    assert re.search(r"AgrSum +agreement +0.500 \+/- 0.071 +0.400 \+/- 0.071 +0.300 \+/- 0.071 +0.200", out)
    assert re.search(r"AgrSum +cosine +0.250 \+/- 0.035.* 0.000 *\n", out)
    assert re.search(r"AgrSum +zeros +0.200 \+/- 0.000 +0.200 \+/- 0.000 +0.200 \+/- 0.000 *\n", out)
    assert "ERM  " not in out.partition("agreement of gradients")[2]


def test_without_logged_values_it_says_so(sweep, collect):
    assert "No run has logged agreement" in collect(sweep({"ERM": {0: [0.5]}}), "--gradients").out


def test_the_page_has_table_and_curves(records, collect, tmp_path):
    collect(records, "--html", str(tmp_path / "page.html"))
    text = (tmp_path / "page.html").read_text()
    title = "Dataset: EmojiStyles, agreement and cosine over the updates"
    for name in ("agreement", "cosine"):
        assert f'aria-label="{title}: {name} of AgrSum"' in text
    assert '<td class="number">0.500 ± 0.071</td>' in text

"""Files and headings that the documents name exist."""

import re
from pathlib import Path

ROOT = Path(__file__).parents[2]


def test_files_that_documents_name_are_there(documents):
    for path in documents:
        for name in re.findall(r"`((?:\w+/)*\w+\.py)`", path.read_text(encoding="utf-8")):
            if not name.startswith("my_") and not name.endswith("/NAME.py"):
                found = [ROOT / name] if "/" in name else [*ROOT.glob(f"domainbed*/**/{name}")]
                assert any(file.is_file() for file in found), f"{path.name}: {name}"


def test_links_and_pictures_are_there(documents):
    for path in [*documents, ROOT / "CHANGELOG.md"]:
        for target, anchor in re.findall(
            r"\]\((?!http)([^)#]+)(?:#([^)]+))?\)", path.read_text(encoding="utf-8")
        ):
            file = path.parent / target
            assert file.exists(), f"{path.name}: {target}"
            headings = (
                re.findall(r"^#+ (.*)", file.read_text(encoding="utf-8"), re.MULTILINE) if anchor else []
            )
            anchors = [re.sub(r"[^\w -]", "", heading.lower()).replace(" ", "-") for heading in headings]
            assert not anchor or anchor in anchors, f"{path.name}: {target}#{anchor}"

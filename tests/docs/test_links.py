"""Every relative link of the documentation leads somewhere."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from tests.docs.markdown import DOCUMENTS, ROOT, anchors, prose

PAGES = sorted((ROOT / "docs").glob("*.md"))


@pytest.mark.parametrize("file", DOCUMENTS, ids=lambda file: file.name)
def test_relative_links_resolve(file: Path) -> None:
    for target in re.findall(r"\]\(([^)\s]+)\)", prose(file)):
        if target.startswith(("https://", "http://", "mailto:")):
            continue
        path, _, anchor = target.partition("#")
        linked = (file.parent / path).resolve() if path else file
        assert linked.exists(), f"{file.name} links to {target}"
        assert linked.is_relative_to(ROOT), f"{file.name} links out of the repository: {target}"
        if anchor:
            assert anchor in anchors(linked), f"{file.name} links to {target}; there are {sorted(anchors(linked))}"


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_the_readme_leads_to_every_page(page: Path) -> None:
    assert f"](docs/{page.name})" in (ROOT / "README.md").read_text(encoding="utf-8")


def test_nothing_is_left_to_be_filled_in() -> None:
    for file in DOCUMENTS:
        found = re.findall(r"^[A-Z]{6,}$|\bTODO\b|\bTBD\b|\bFIXME\b", prose(file), flags=re.MULTILINE)
        assert not found, f"{file.name}: {found}"

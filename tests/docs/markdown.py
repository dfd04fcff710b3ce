"""What the tests need to know of the documentation's Markdown: code blocks, tables that are checked, headings."""

from __future__ import annotations

import dataclasses
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Final

ROOT: Final = Path(__file__).resolve().parents[2]
DOCUMENTS: Final = (
    ROOT / "README.md",
    ROOT / "CONTRIBUTING.md",
    *sorted((ROOT / "docs").glob("*.md")),
)

_MARKER = re.compile(
    r"<!-- checked: (?P<what>\S+)(?: prefix: (?P<prefix>\S+))?(?: without: (?P<without>[^>]*?))? -->"
)
_CELL_BORDER = re.compile(r"(?<!\\)\|")


@dataclasses.dataclass(frozen=True, slots=True)
class Block:
    """A fenced block of code."""

    file: Path
    line: int  #: of its first line of code, from 1
    language: str
    text: str

    def __str__(self) -> str:
        return f"{self.file.name}:{self.line}"

    @property
    def file_name(self) -> str:
        """The name given in a first line `# name.yaml`; empty: none."""
        found = re.match(r"# (\S+\.\w+)\n", self.text)
        return found.group(1) if found else ""


@dataclasses.dataclass(frozen=True, slots=True)
class Table:
    """A table that follows a marker `<!-- checked: … -->`; `rows` by the first cell, without backticks."""

    file: Path
    what: str
    prefix: str
    without: frozenset[str]
    rows: dict[str, tuple[str, ...]]

    def __str__(self) -> str:
        return f"{self.file.name}, {self.what}"


def blocks(file: Path, language: str) -> Iterator[Block]:
    inside, begin, lines = "", 0, list[str]()
    for number, line in enumerate(file.read_text(encoding="utf-8").splitlines(), 1):
        if not line.startswith("```"):
            lines.append(line)
        elif inside:
            if inside == language:
                yield Block(file, begin, language, "\n".join(lines) + "\n")
            inside = ""
        else:
            inside, begin, lines = line.removeprefix("```").strip() or "text", number + 1, []


def all_blocks(language: str) -> list[Block]:
    return [block for file in DOCUMENTS for block in blocks(file, language)]


def prose(file: Path) -> str:
    """The text without its code blocks."""
    return re.sub(r"^```.*?^```$", "", file.read_text(encoding="utf-8"), flags=re.MULTILINE | re.DOTALL)


def checked_tables() -> list[Table]:
    return [table for file in DOCUMENTS for table in _checked_tables(file)]


def _checked_tables(file: Path) -> Iterator[Table]:
    lines = file.read_text(encoding="utf-8").splitlines()
    for number, line in enumerate(lines):
        if (found := _MARKER.fullmatch(line)) is None:
            continue
        rows: dict[str, tuple[str, ...]] = {}
        for row in lines[number + 3 :]:
            if not row.startswith("|"):
                break
            first, *rest = (plain(cell) for cell in _CELL_BORDER.split(row.strip())[1:-1])
            assert first not in rows, f"{file.name}: {first} twice in the table of {found['what']}"
            rows[first] = tuple(rest)
        yield Table(file, found["what"], found["prefix"] or "", frozenset((found["without"] or "").split()), rows)


def plain(cell: str) -> str:
    return cell.strip().replace("`", "").replace("\\|", "|")


def anchors(file: Path) -> set[str]:
    """What `#…` may name: headings as GitHub makes addresses of them."""
    headings = re.findall(r"^#+ (.+)$", prose(file), flags=re.MULTILINE)
    return {re.sub(r"[^\w\- ]", "", heading.lower()).replace(" ", "-") for heading in headings}

"""The fuzz tests' own clock, and their count.

Hypothesis imports its optimiser in the middle of a run, and pytest parses it, while a bridge parses in a thread of
its own: Python 3.11 may fail at that ("AST constructor recursion depth mismatch"). So it is imported here.
"""

from __future__ import annotations

from collections.abc import Iterator

import hypothesis.internal.conjecture.optimiser  # noqa: F401
import pytest

from stayline.dev_server import DevServer
from tests.fuzz.away import Away, temporal_away
from tests.fuzz.generators import EXAMPLES, counts


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """What hangs is found by the time limit, which grows with the number of examples."""
    for item in items:
        if "tests/fuzz/" in item.path.as_posix():
            item.add_marker(pytest.mark.timeout(60 + EXAMPLES // 10))


@pytest.fixture(scope="module")
def away(temporal_server: DevServer) -> Iterator[Away]:
    with temporal_away(temporal_server.address) as running:
        yield running


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter) -> None:
    if counts:
        terminalreporter.section("fuzzed inputs")
        for name, number in sorted(counts.items()):
            terminalreporter.line(f"{number:>10,}  {name}")
        terminalreporter.line(f"{counts.total():>10,}  in all")

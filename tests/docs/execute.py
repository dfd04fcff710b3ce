"""Runs the documentation's Python as a reader would: block after block, in one module."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from stayline.registry import provider_names, unregister_provider
from tests.docs.markdown import blocks


@contextmanager
def running(file: Path) -> Iterator[dict[str, Any]]:
    """What the names of a page are when all its blocks have run; what `__main__` would do is left to the test.

    Providers that the page registers are forgotten at the end: other tests share this process.
    """
    known = set(provider_names())
    namespace: dict[str, Any] = {"__name__": "documentation"}
    try:
        for block in blocks(file, "python"):
            padded = "\n" * (block.line - 1) + block.text  # tracebacks name the line in the document
            exec(compile(padded, str(file), "exec"), namespace)
        yield namespace
    finally:
        for name in set(provider_names()) - known:
            unregister_provider(name)

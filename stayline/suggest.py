"""Turn a misspelt name into a useful sentence."""

from __future__ import annotations

import difflib
from collections.abc import Sequence


def closest(wrong: str, known: Sequence[str]) -> str:
    """ "Did you mean 'x'?" if something is near, else the whole list."""
    near = difflib.get_close_matches(wrong, known, n=1, cutoff=0.6)
    return f"Did you mean {near[0]!r}?" if near else f"Known: {', '.join(sorted(known))}."

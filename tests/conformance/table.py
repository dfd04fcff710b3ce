"""`docs/conformance.md`: every provider of a role, and every check that it is put to. See `make conformance`."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from tests.conformance import test_llm, test_realtime, test_stt, test_tts
from tests.conformance.suite import Suite

PAGE = Path(__file__).resolve().parents[2] / "docs/conformance.md"
SUITES: tuple[Suite[Any], ...] = (test_stt.SUITE, test_llm.SUITE, test_tts.SUITE, test_realtime.SUITE)
HEAD = """\
# Conformance

Every provider of a role is put to the same checks, each before a fake that speaks its vendor's protocol (or,
offline, with its engine). `make test` runs all of them; `make conformance` runs them alone and writes this page; a
test fails where the two differ. A ✓ is a check that applies and passes; a – does not apply, for the reason under
the table. `make live` puts the vendors themselves to the checks that need no fake, where their keys are set.

```sh
make conformance
```
"""


def page() -> str:
    parts = [HEAD]
    for suite in SUITES:
        parts += [f"## {suite.title[0].upper()}{suite.title[1:]}", "", suite.table(), ""]
    return "\n".join(parts)


if __name__ == "__main__":
    PAGE.write_text(page())
    print(f"wrote {PAGE.name}")

"""More callers than one core holds: how many are taken, how many refused, and whether those who talk notice.

The bridge judges by the lag of its own event loop, at the limit that it has by default (STAYLINE_MAX_LOOP_LAG_MS).
Three callers dial a second, and whoever is taken talks at once, while the others still dial. The same callers then
meet a bridge that refuses nobody. Turns are found by Silero in the bridge: so its core is what is full, and not
that of callers, vendors and Temporal.

    python -m benchmarks.crowd --callers 250
"""

from __future__ import annotations

import argparse
import asyncio
import json
import sys
from pathlib import Path
from typing import Any, Final

import structlog

from benchmarks import cell, machine

RESULTS: Final = Path(__file__).parent / "results" / "crowd.json"
SERVERS: Final = {"stayline-admission": "refuses by its lag", "stayline-vad": "refuses nobody"}
ON_TIME: Final = 0.995
"""Share of the answers that come whole and do not run dry, where calls keep their timing."""


def rows(row: dict[str, Any], how: str) -> list[dict[str, Any]]:
    """The figures of one run, as the report shows them."""
    share = row["on_time"] / max(1, row["turns"])
    judged = row["server"] == "stayline-admission"
    answers = row.get("answer_ms", {})  # empty where nobody was answered
    return [
        {"what": f"{how}: callers who were taken", "figure": row["calls"] - row["refused"], "unit": ""},
        {"what": f"{how}: callers who were refused", "figure": row["refused"], "unit": ""},
        *(
            {"what": f"{how}: added latency, {at}", "figure": round(answers[at], 1), "unit": "ms"}
            for at in ("p50", "p95")
            if at in answers
        ),
        {
            "what": f"{how}: answers on time, of all who were taken",
            "figure": round(100 * share, 2),
            "unit": "%",
            **({"goal": f"≥ {100 * ON_TIME:g}", "met": share >= ON_TIME and not row["lost"]} if judged else {}),
        },
    ]


async def main(given: argparse.Namespace) -> None:
    structlog.configure(wrapper_class=structlog.make_filtering_bound_logger(50))
    machine.leave_the_server_alone()
    found, cells = [], []
    for server, how in SERVERS.items():
        outcome = await cell.run(cell.Cell(server, "text", given.callers, given.turns, crowd=True))
        found += rows(outcome.row, how)
        cells.append(outcome.row)
        print(json.dumps(outcome.row), flush=True)
    heading = machine.heading(
        "More callers than a core holds", " ".join(["python -m benchmarks.crowd", *sys.argv[1:]])
    )
    told = {**heading, "rows": found, "cells": cells}
    given.out.write_text(json.dumps(told, indent=1) + "\n")
    print(f"written: {given.out}")


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--callers", type=int, default=250)
    parser.add_argument("--turns", type=int, default=4, help="of each caller, after all have dialled; 5 s each")
    parser.add_argument("--out", type=Path, default=RESULTS, help="where the results go")
    asyncio.run(main(parser.parse_args()))

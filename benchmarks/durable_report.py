"""What the durability benchmarks report: figures with their goals, the machine they are of, and percentiles."""

from __future__ import annotations

import dataclasses
import json
import math
import os
import platform
from collections.abc import Mapping, Sequence
from datetime import UTC, datetime
from importlib.metadata import version
from pathlib import Path
from typing import Any

RESULTS = Path(__file__).parent / "results"


@dataclasses.dataclass(frozen=True, slots=True)
class Row:
    """One figure. `met` is None where the figure has no goal."""

    what: str
    figure: float
    unit: str
    goal: str = ""
    met: bool | None = None


def percentile(values: Sequence[float], percent: float) -> float:
    """The smallest value that at least so many per cent of the values do not exceed (nearest rank)."""
    if not values:
        raise ValueError("no values")
    ordered = sorted(values)
    return ordered[max(0, math.ceil(len(ordered) * percent / 100) - 1)]


def machine() -> dict[str, Any]:
    """What the figures were measured on, and how busy it was with other things just before."""
    return {
        "cores": os.cpu_count(),
        "system": f"{platform.system()} {platform.machine()}",
        "python": platform.python_version(),
        "temporalio": version("temporalio"),
        "load_average": round(os.getloadavg()[0], 2),
    }


def show(rows: Sequence[Row]) -> None:
    for row in rows:
        met = {None: "", True: "met", False: "NOT MET"}[row.met]
        print(f"{row.figure:>10g} {row.unit:<8} {row.goal:>14} {met:>8}  {row.what}", flush=True)


def write(
    path: Path, title: str, command: str, machine: Mapping[str, Any], parts: Mapping[str, Mapping[str, Any]]
) -> None:
    """Write the results. A part that was not run this time is kept as the file has it, with its own date.

    Args:
        parts: by name, each with `rows` (of `Row`s) and raw `series`.
    """
    try:
        kept = json.loads(path.read_text())["parts"]
    except (OSError, ValueError, KeyError):
        kept = {}
    now = datetime.now(UTC).isoformat(timespec="seconds")
    for name, part in parts.items():
        rows = [dataclasses.asdict(row) for row in part["rows"]]
        kept[name] = {"date": now, "command": command, "machine": dict(machine), **part, "rows": rows}
    path.parent.mkdir(parents=True, exist_ok=True)
    whole = {
        "title": title,
        "command": command,
        "date": now,
        "machine": dict(machine),
        "rows": [row for part in kept.values() for row in part["rows"]],
        "parts": kept,
    }
    path.write_text(json.dumps(whole, indent=1, ensure_ascii=False) + "\n")

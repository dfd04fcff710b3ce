"""Writes the measured tables and plots into `docs/performance.md`, from `benchmarks/results/*.json`.

    python -m benchmarks.report            # or: make performance

Between `<!-- results: NAME -->` and `<!-- end -->` stands what `results/NAME.json` says; the text around is written
by hand. Results of the load benchmark (`load-*`) have tables of their own; every other file is a list of rows with
what, figure, unit, goal and whether it is met. A section whose file is not there says so.
"""

from __future__ import annotations

import json
import re
from collections.abc import Callable
from typing import Any, Final

from benchmarks.goals import Goal, barge_in_goals, ceiling_goals, load_goals
from benchmarks.servers import HERE

RESULTS: Final = HERE / "results"
PAGE: Final = HERE.parent / "docs" / "performance.md"
_SECTION: Final = re.compile(r"(<!-- results: ([a-z0-9-]+) -->\n).*?(<!-- end -->)", re.DOTALL)
_DOUBT: Final = "†"

Result = dict[str, Any]


def table(head: list[str], rows: list[list[str]]) -> str:
    """A Markdown table; columns but the first are figures, and stand right."""
    lines = [head, ["---", *["---:"] * (len(head) - 1)], *rows]
    return "\n".join(f"| {' | '.join(line)} |" for line in lines)


def number(value: float | None, digits: int = 1) -> str:
    if value is None:
        return "–"
    return f"{value:,.0f}" if abs(value) >= 100 else f"{value:.{digits}f}"


def spread(found: dict[str, float] | None) -> str:
    return " / ".join(number(found[at]) for at in ("p50", "p95", "p99")) if found else "–"


def named(row: dict[str, Any]) -> str:
    return f"`{row['server']}`" + ("" if row["evidence"] else f" {_DOUBT}")


def doubt(result: Result) -> str:
    """The note that explains the mark, where a row has it."""
    if all(row["evidence"] for row in result["rows"]):
        return ""
    return f"{_DOUBT} The callers were late or others used the machine: no evidence on latency."


def goals(found: list[Goal]) -> str:
    words = {True: "met", False: "**not met**", None: ""}
    rows = [[goal.what, goal.figure, goal.goal, words[goal.met]] for goal in found]
    return table(["goal", "measured", "wanted", ""], rows) if rows else ""


def load(result: Result, name: str) -> str:
    """Latency and cost, by server and number of calls at once."""
    rows = []
    for row in result["rows"]:
        rows.append(
            [
                named(row),
                str(row["calls"]),
                spread(row.get("answer_ms")),
                number((row.get("heard_ms") or {}).get("p50")),
                f"{row['answered']} of {row['turns']}",
                f"{100 * row['on_time'] / max(1, row['turns']):.1f} %",
                number(row["cpu_ms_per_call_second"]),
                number(row["rss_idle_mib"], 0),
                number(row["rss_mib_per_call"], 2),
            ]
        )
    head = [
        "server",
        "calls",
        "added ms, p50 / p95 / p99",
        "in ms",
        "answered",
        "on time",
        "CPU ms",
        "idle",
        "per call",
    ]
    try:
        from benchmarks import plots
    except ImportError:
        raise SystemExit("The plots need matplotlib: install it into .venv (it is the extra `bench`).") from None
    picture = plots.latency(result["rows"], PAGE.parent / "performance", name)
    parts = [
        table(head, rows),
        doubt(result),
        f"![{result['title']}]({picture.relative_to(PAGE.parent)})",
        goals(load_goals(result["rows"])),
    ]
    return "\n\n".join(part for part in parts if part)


def barge_in(result: Result, name: str) -> str:
    """How soon the agent is silent when the caller speaks."""
    rows = [
        [named(row), str(row["calls"]), spread(row.get("clear_ms")), spread(row.get("onset_ms"))]
        for row in result["rows"]
    ]
    head = ["server", "calls", "vendor's word → `clear`, ms", "caller's first sound → `clear`, ms"]
    return "\n\n".join(filter(None, [table(head, rows), doubt(result), goals(barge_in_goals(result["rows"]))]))


def ceiling(result: Result, name: str) -> str:
    """Calls per core."""
    most = result["calls_per_core"]
    doubtful = result.get("doubtful", [])
    rows = [[f"`{server}`" + f" {_DOUBT}" * (server in doubtful), str(calls)] for server, calls in most.items()]
    note = f"{_DOUBT} It failed when the callers were late or others used the machine: it may hold more."
    parts = [table(["server", "calls per core"], rows), note * bool(doubtful), goals(ceiling_goals(most))]
    return "\n\n".join(filter(None, parts))


def plain(result: Result, name: str) -> str:
    """Rows of what, figure, unit, goal and whether it is met."""
    words = {True: "met", False: "**not met**", None: ""}
    rows = [
        [row["what"], f"{row['figure']:,g} {row['unit']}", str(row.get("goal") or ""), words[row.get("met")]]
        for row in result["rows"]
    ]
    return table(["what", "measured", "goal", ""], rows)


def section(name: str) -> str:
    """What stands between the markers of a section."""
    path = RESULTS / f"{name}.json"
    if not path.exists():
        return f"Not measured yet: there is no `benchmarks/results/{name}.json`."
    result: Result = json.loads(path.read_text())
    kind: Callable[[Result, str], str] = plain
    if name.startswith("load"):
        kind = ceiling if name.endswith("-ceiling") else barge_in if name.endswith("-barge-in") else load
    machine = result.get("machine", {})
    where = ", ".join(str(machine[key]) for key in ("cpu", "system") if key in machine)
    where = ", ".join(filter(None, [where, f"{machine['cores']} cores" if "cores" in machine else ""]))
    source = f"`{result['command']}` · {result['date'][:10]} · {where}"
    return f"{kind(result, name)}\n\n{source}"


def filled(page: str) -> str:
    """The page with all its sections written anew."""
    return _SECTION.sub(lambda found: f"{found[1]}\n{section(found[2])}\n\n{found[3]}", page)


def main() -> None:
    page = PAGE.read_text()
    PAGE.write_text(filled(page))
    names = [found[2] for found in _SECTION.finditer(page)]
    unused = sorted({path.stem for path in RESULTS.glob("*.json")} - set(names))
    print(f"{PAGE}: {', '.join(names)}" + (f"; not on the page: {', '.join(unused)}" if unused else ""))


if __name__ == "__main__":
    main()

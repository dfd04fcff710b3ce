"""The auditor: reads what everybody left behind after a run, and says what must not be. It shares no code with us.

python -m tests.chaos.auditor FOLDER
"""

from __future__ import annotations

import dataclasses
import sys
from collections import Counter
from pathlib import Path

from tests.chaos.audit import effects, ends, leaks, turns
from tests.chaos.audit.evidence import Evidence, Finding, load

__all__ = ["Finding", "Report", "audit", "judge"]


@dataclasses.dataclass(frozen=True, slots=True)
class Report:
    """What the auditor found.

    Attributes:
        heard: how many calls ended how, for the caller.
        counts: how much there was to judge.
    """

    calls: int
    findings: list[Finding]
    heard: dict[str, int]
    counts: dict[str, int]

    def text(self) -> str:
        lines = [f"{self.calls} calls; {', '.join(f'{count} {what}' for what, count in self.counts.items())}"]
        lines += [f"  {count:5} {how}" for how, count in sorted(self.heard.items())]
        lines += [f"{len(self.findings)} findings", *(f"  {finding}" for finding in self.findings)]
        return "\n".join(lines)


def audit(folder: Path) -> Report:
    """Judge a run by the evidence in its folder."""
    return judge(load(folder))


def judge(seen: Evidence) -> Report:
    """Apply every rule."""
    findings = list(
        dict.fromkeys([*ends.check(seen), *turns.check(seen), *effects.check(seen), *leaks.check(seen)])
    )
    calls = seen.calls()
    records = list(seen.records.values())
    counts = {
        "turns": sum(len(record.of("user_turn", "agent_turn")) for record in records),
        "sessions": sum(len(record.of("session_opened")) for record in records),
        "tool effects": sum(line["kind"] == "effect" for line in seen.tools),
        "faults": len(seen.faults),
        "history events": sum(len(workflow.events) for workflow in seen.workflows),
    }
    return Report(len(calls), findings, dict(Counter(_heard(seen, call) for call in calls)), counts)


def _heard(seen: Evidence, call: str) -> str:
    """How the call ended for its caller."""
    if not seen.of_carrier(call, "answered"):
        return "never answered"
    left = seen.of_caller(call, "hangs_up")
    if left:
        return {"done": "had every answer and hung up", "leaves": "left in mid-call, as they wanted"}.get(
            left[0]["why"], "gave up"
        )
    if any(line["detail"] == "Dial" for line in seen.of_carrier(call, "twiml")):
        return "were connected to somebody"
    if ends.told_farewell(seen, call):
        return "heard a goodbye or an apology"
    return "were cut off"


if __name__ == "__main__":
    if len(sys.argv) != 2:
        sys.exit("usage: python -m tests.chaos.auditor FOLDER")
    report = audit(Path(sys.argv[1]))
    print(report.text())
    sys.exit(bool(report.findings))

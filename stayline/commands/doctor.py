"""`stayline doctor`: what is right, what is wrong, and what to do about it."""

from __future__ import annotations

from collections.abc import AsyncIterator, Sequence

from rich.console import Console
from rich.text import Text

from stayline.agent import Agent, load_agents
from stayline.catalog import ROLES, Role
from stayline.checks import Problem, check_agent, check_settings
from stayline.commands import probes
from stayline.commands.probes import Finding
from stayline.commands.terminal import EXIT_REFUSED, clean, out, print_json
from stayline.errors import StaylineError
from stayline.settings import Settings, TwilioCredentials

_MARKS = {"ok": ("✓", "green"), "warn": ("!", "yellow"), "fail": ("✗", "bold red")}


async def run_doctor(agents: Sequence[str], settings: Settings, as_json: bool) -> int:
    """Check everything and print it.

    Args:
        agents: references as with `--agent`; empty: those of the settings.
    Returns:
        The command's exit code: 0 when nothing failed (warnings may stand), else 1.
    """
    findings: list[Finding] = []
    console = out()
    working = console.status("Looking…") if console.is_terminal and not as_json else None
    if working:
        working.start()
    try:
        async for finding in examine(agents, settings):
            findings.append(finding)
            if not as_json:
                _print(console, finding)
    finally:
        if working:
            working.stop()
    failed = sum(finding.status == "fail" for finding in findings)
    warned = sum(finding.status == "warn" for finding in findings)
    if as_json:
        print_json({"ok": not failed, "findings": findings})
    elif failed:
        console.print(f"{failed} to put right, {warned} to consider.")
    else:
        console.print("Everything that is needed works." + (f" {warned} to consider." if warned else ""))
    return EXIT_REFUSED if failed else 0


async def examine(references: Sequence[str], settings: Settings) -> AsyncIterator[Finding]:
    """All findings, in the order in which a reader would want to put them right."""
    twilio = TwilioCredentials()
    problems = check_settings(settings, twilio)
    for problem in problems:
        yield _found("settings", problem)
    if not problems:
        yield probes.ok("settings", f"are consistent; carrier {settings.carrier}")

    wanted = list(references) or list(settings.agents)
    if not wanted:
        yield probes.warn(
            "agent", "none was given, so no key and no engine was tried", "Add --agent module:variable."
        )
    else:
        async for finding in _agents(wanted):
            yield finding
    async for finding in probes.probe_temporal(settings):
        yield finding
    if settings.carrier == "twilio":
        async for finding in probes.probe_twilio(settings, twilio):
            yield finding
    async for finding in probes.probe_bridge(settings, twilio):
        yield finding
    async for finding in probes.probe_data(settings):
        yield finding


async def _agents(references: Sequence[str]) -> AsyncIterator[Finding]:
    try:
        agents = load_agents(references)
    except StaylineError as error:
        yield probes.fail("agent", error.message, error.fix)
        return
    tried: set[tuple[Role, str]] = set()
    for agent in agents.values():
        problems = check_agent(agent.spec())
        for problem in problems:
            yield _found("agent", problem)
        if any(problem.severity == "error" for problem in problems):
            continue
        if not problems:
            yield probes.ok("agent", f"{agent.name!r} is consistent")
        for role, ref in _providers(agent):
            if (role, ref) not in tried:
                tried.add((role, ref))
                yield await probes.probe_provider(role, ref, agent.spec())


def _providers(agent: Agent) -> list[tuple[Role, str]]:
    spec = agent.spec()
    served: dict[Role, tuple[str, ...]] = {role: getattr(spec, role) for role in ROLES}
    return [(role, ref) for role, refs in served.items() for ref in refs]


def _found(area: str, problem: Problem) -> Finding:
    return Finding(area, "fail" if problem.severity == "error" else "warn", problem.message, problem.fix)


def _print(console: Console, finding: Finding) -> None:
    mark, style = _MARKS[finding.status]
    line = Text.assemble((f"{mark} ", style), (f"{finding.area:<9}", "dim"), clean(finding.message))
    console.print(line, soft_wrap=True)
    if finding.fix:
        console.print(Text(f"            → {clean(finding.fix)}"), soft_wrap=True)

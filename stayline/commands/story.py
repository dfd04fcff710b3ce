"""A timeline entry in words: who, what, and the small print under it. Pure; the same for `show` and `watch`."""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Callable, Sequence
from typing import Any, Final

from rich.text import Text

from stayline.commands.terminal import clean, count, duration
from stayline.models import ToolAttempt, ToolCall, ToolOutcome
from stayline.timeline import (
    AgentTurn,
    AnsweredBy,
    CallAdmitted,
    CallDialled,
    CallEnded,
    CallError,
    CallOutcome,
    CallRejected,
    ChangeReason,
    Commanded,
    Dtmf,
    Interruption,
    LimitReached,
    ProviderChanged,
    RecordGap,
    SessionClosed,
    SessionOpened,
    TimelineEvent,
    ToolCalled,
    ToolSettled,
    TransferOutcome,
    TransferSettled,
    TurnLatency,
    UserTurn,
)

STYLES: Final = {
    "caller": "bold cyan",
    "agent": "bold green",
    "tool": "bold yellow",
    "error": "bold red",
    "person": "bold magenta",
    "transfer": "bold magenta",
}
"""Who speaks, by colour; anybody else is dim."""

LONGEST_VALUE: Final = 300
"""Characters of a tool's arguments or result that are shown; `--json` has all."""


@dataclasses.dataclass(frozen=True, slots=True)
class Line:
    """What happened, and remarks that go under it."""

    who: str
    text: Text
    remarks: Sequence[Text] = ()


def tell(event: TimelineEvent) -> Line | None:
    """One event; None when it is told by others or means nothing to a reader (usage)."""
    teller = _TELLERS.get(type(event))
    return teller(event) if teller else None


# --- turns -----------------------------------------------------------------------------------------------


def _user_turn(event: UserTurn) -> Line:
    unsure = event.confidence is not None and event.confidence < 0.6
    remark = [Text(f"recogniser unsure: confidence {event.confidence:.2f}", "dim")] if unsure else []
    return Line("caller", Text(clean(event.text)), remark)


_SOURCES: Final = {
    "greeting": "greeting",
    "filler": "filler",
    "operator": "asked for by a person",
    "limit": "limit",
    "silence": "silence prompt",
    "resume": "after the break",
    "goodbye": "goodbye",
    "apology": "apology",
}


def _agent_turn(event: AgentTurn) -> Line:
    text = Text(clean(event.text))
    small = [_SOURCES.get(event.source, ""), _latency(event.latency)]
    if event.interrupted:
        text.append(" ✂" if event.text else "✂", "bold red")
        unheard = _unheard(event)
        if unheard:
            text.append(f" [not heard: {clean(unheard)}]", "dim")
        small.insert(0, "interrupted")
    remarks = [Text(" · ".join(filter(None, small)), "dim")] if any(small) else []
    return Line("agent", text, remarks)


def _unheard(event: AgentTurn) -> str:
    """What was generated beyond what was heard."""
    generated = event.generated or ""
    return generated[len(event.text) :].strip() if generated.startswith(event.text) else generated


def _latency(latency: TurnLatency | None) -> str:
    """`first sound after 655 ms: end of turn 310 + model 120 + voice 180 + rest 45`."""
    if latency is None:
        return ""
    parts = {"end of turn": latency.endpoint_ms, "model": latency.llm_ms, "voice": latency.tts_ms}
    known = {name: value for name, value in parts.items() if value is not None}
    if latency.total_ms is None:
        return "latency: " + ", ".join(f"{name} {value} ms" for name, value in known.items()) if known else ""
    saved = latency.saved_ms or 0
    rest = latency.total_ms - sum(known.values()) + saved
    if known and rest > 0:
        known["rest"] = rest
    text = f"first sound after {latency.total_ms} ms"
    text += ": " + " + ".join(f"{name} {value}" for name, value in known.items()) if known else ""
    return f"{text} - {saved} begun early" if saved else text


def _interruption(event: Interruption) -> Line | None:
    # A true interruption shows at the agent turn that it cut.
    return Line("call", Text("the caller made a noise; the agent went on", "dim")) if event.resumed else None


# --- tools -----------------------------------------------------------------------------------------------


def tool_call(call: ToolCall) -> Text:
    """`get_weather(location="Lisbon")`."""
    arguments = ", ".join(f"{clean(name)}={value(given)}" for name, given in call.arguments.items())
    return Text.assemble((clean(call.name), "yellow"), f"({shorten(arguments)})")


def value(given: Any) -> str:
    """A JSON value in one line."""
    return clean(json.dumps(given, ensure_ascii=False))


def shorten(text: str, limit: int = LONGEST_VALUE) -> str:
    return text if len(text) <= limit else text[: limit - 1] + "…"


def waiting_line(call: ToolCall) -> Line:
    """A tool that waits for a person, and what that person can do."""
    text = Text.assemble("⏸ ", (clean(call.name), "yellow"), (" waits for approval", "bold"))
    return Line("tool", text, [Text(f"tool call {clean(call.id)}; `stayline calls approve` releases it", "dim")])


def _tool_called(event: ToolCalled) -> Line:
    remarks = [Text("asked again while it runs: joins that run", "dim")] if event.duplicate_of else []
    return Line("tool", tool_call(event.call), remarks)


def _tool_settled(event: ToolSettled) -> Line:
    return tool_outcome(event.outcome, event.outcome.attempts, after_hangup=event.after_hangup)


def tool_outcome(outcome: ToolOutcome, attempts: Sequence[ToolAttempt], *, after_hangup: bool = False) -> Line:
    """How a tool ended, with those `attempts` that the reader has not seen yet."""
    tried = count(len(outcome.attempts), "attempt")
    took = f"{tried}, {duration(outcome.seconds)}" if outcome.attempts else duration(outcome.seconds)
    name = clean(outcome.name)
    match outcome.status:
        case "succeeded":
            text = Text.assemble(("✓ ", "bold green"), (name, "yellow"), (f"  {took}", "dim"))
            text.append(f" → {shorten(value(outcome.result))}")
        case "unknown":
            text = Text.assemble(("? ", "bold red"), (name, "yellow"), (f"  {took}", "dim"), " effect unknown")
        case "refused":
            text = Text.assemble(("✗ ", "bold red"), (name, "yellow"), (f"  {took}", "dim"), " refused")
        case _:
            text = Text.assemble(("✗ ", "bold red"), (name, "yellow"), (f"  {took}", "dim"), f" {outcome.status}")
    remarks = [attempt_line(attempt) for attempt in attempts if attempt.error]
    if outcome.error:
        remarks.append(Text(f"the agent reads: {shorten(clean(outcome.error))}", "dim"))
    if after_hangup:
        remarks.append(Text("it ended when the caller was gone", "dim"))
    return Line("tool", text, remarks)


def attempt_line(attempt: ToolAttempt) -> Text:
    took = f" after {duration(attempt.seconds)}" if attempt.seconds is not None else ""
    error = shorten(clean(attempt.error or "it worked"))
    return Text.assemble((f"↻ attempt {attempt.number} failed{took}: ", "red"), error)


# --- the call and its sessions ---------------------------------------------------------------------------

_CLOSED: Final = {
    "stopped": "ended by the carrier",
    "closed": "closed by us",
    "lost": "lost: its connection broke",
    "bridge_lost": "lost: its bridge died",
    "replaced": "replaced by a newer one",
}


def _session_opened(event: SessionOpened) -> Line:
    bridge = f"session {event.session} on bridge {clean(event.bridge_id)}"
    if not event.resumed:
        return Line("session", Text(bridge, "dim"))
    return Line("session", Text.assemble(bridge, (": the call goes on", "green")))


def _session_closed(event: SessionClosed) -> Line:
    lost = event.reason in ("lost", "bridge_lost")
    text = Text(f"session {event.session} {_CLOSED[event.reason]}", "red" if lost else "dim")
    remarks = [Text(f"recording {clean(event.recording)}", "dim")] if event.recording else []
    return Line("session", text, remarks)


def _ended(event: CallEnded) -> Line:
    by = f", by {clean(event.by)}" if event.by and event.by not in ("caller", "carrier", "limit") else ""
    return Line("call", Text(f"ended: {outcome_words(event.outcome)}{by}", "bold"))


_OUTCOMES: Final[dict[CallOutcome, str]] = {
    "completed": "completed",
    "caller_hung_up": "the caller hung up",
    "transferred": "transferred",
    "rejected": "rejected",
    "duration_limit": "time limit reached",
    "silence_limit": "nobody spoke",
    "no_stream": "no stream came",
    "busy": "the line was busy",
    "no_answer": "nobody answered",
    "lost": "lost",
    "failed": "failed",
}


def outcome_words(outcome: CallOutcome | None) -> str:
    return _OUTCOMES[outcome] if outcome else ""


# --- people, transfers, limits ---------------------------------------------------------------------------


def _commanded(event: Commanded) -> Line:
    detail = clean(event.detail)
    text = {
        "transfer": f"transfers the call to {detail}",
        "end": "ends the call" + (f", saying: {detail}" if detail else ""),
        "say": f"has the agent say: {detail}",
        "approve": f"approves tool call {detail}",
        "refuse": f"refuses tool call {detail}",
    }[event.command]
    why = [Text(f"why: {clean(event.why)}", "dim")] if event.why else []
    who = "agent" if event.by == "agent" else "person"
    return Line(who, Text(text if event.by == "agent" else f"{clean(event.by)} {text}", "italic"), why)


_TRANSFERS: Final[dict[TransferOutcome, str]] = {
    "answered": "answered",
    "busy": "the line was busy",
    "no_answer": "nobody answered",
    "failed": "it could not be connected",
    "caller_left": "the caller left meanwhile",
}


def _transfer_settled(event: TransferSettled) -> Line:
    took = f" ({duration(event.seconds)})" if event.seconds is not None else ""
    text = Text(f"{clean(event.to)}: {_TRANSFERS[event.outcome]}{took}")
    if event.outcome in ("busy", "no_answer", "failed"):
        text.stylize("red")
        text.append("; the caller is back with the agent")
    return Line("transfer", text)


_LIMITS: Final = {
    "duration_warning": "little time is left: the caller is told",
    "duration": "maximum duration reached",
    "silence_prompt": "nobody has spoken: the caller is asked",
    "silence": "nobody spoke for too long",
    "ring": "no stream came in time",
    "reattach": "no bridge could take the call back in time",
}


def _limit(event: LimitReached) -> Line:
    return Line("limit", Text(_LIMITS[event.limit], "yellow"))


def _error(event: CallError) -> Line:
    origin = " ".join(part for part in (event.where, clean(event.provider)) if part)
    text = Text.assemble((f"{origin}: ", "red"), shorten(clean(event.message)))
    return Line("error", text.append(" (may pass)", "dim") if event.retryable else text)


_CHANGES: Final[dict[ChangeReason, str]] = {
    "failed": "takes over",
    "recovered": "is back",
    "renewed": "goes on over a new connection",
}


def _provider_changed(event: ProviderChanged) -> Line:
    style = "yellow" if event.why == "failed" else "dim"
    return Line("provider", Text(f"{event.role}: {clean(event.provider)} {_CHANGES[event.why]}", style))


def _gap(event: RecordGap) -> Line:
    missing = f"record {event.first}" if event.first == event.last else f"records {event.first} to {event.last}"
    return Line("record", Text(f"{missing} of session {event.session} had not arrived yet", "yellow"))


def _rejected(event: CallRejected) -> Line:
    return Line("call", Text(f"rejected{f': {clean(event.reason)}' if event.reason else ''}", "red"))


_TELLERS: Final[dict[type[Any], Callable[[Any], Line | None]]] = {
    UserTurn: _user_turn,
    AgentTurn: _agent_turn,
    Interruption: _interruption,
    ToolCalled: _tool_called,
    ToolSettled: _tool_settled,
    SessionOpened: _session_opened,
    SessionClosed: _session_closed,
    CallDialled: lambda _: Line("call", Text("dialled", "dim")),
    AnsweredBy: lambda e: Line("call", Text(f"answered by: {e.who.replace('_', ' ')}", "dim")),
    ProviderChanged: _provider_changed,
    CallAdmitted: lambda _: Line("call", Text("admitted", "dim")),
    CallRejected: _rejected,
    CallEnded: _ended,
    CallError: _error,
    Commanded: _commanded,
    TransferSettled: _transfer_settled,
    LimitReached: _limit,
    RecordGap: _gap,
    Dtmf: lambda e: Line("caller", Text(f"presses {clean(e.digit)}", "italic")),
}

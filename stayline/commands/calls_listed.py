"""One line of `calls list`, whatever it was read from: search attributes, a live snapshot or the database."""

from __future__ import annotations

import re
from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING, Literal, get_args

from temporalio.client import WorkflowExecution, WorkflowExecutionStatus
from temporalio.common import SearchAttributeKey

from stayline.commands.calls_temporal import ID_PREFIX
from stayline.commands.terminal import UsageError
from stayline.models import Direction, Mode, Model
from stayline.names import CALL_WORKFLOW, SA_AGENT, SA_DIRECTION, SA_MODE, SA_OUTCOME, SA_STATUS
from stayline.timeline import CallOutcome, CallSnapshot, CallStatus

if TYPE_CHECKING:
    from activities.records_db import CallSummary


class ListedCall(Model):
    """One line of `calls list`. None where the source does not say."""

    call_id: str
    running: bool  #: its workflow still runs
    source: Literal["temporal", "database"]
    status: CallStatus | None = None
    outcome: CallOutcome | None = None
    closed_as: str | None = None  #: how Temporal closed the workflow when the call did not end by itself
    agent: str | None = None
    mode: Mode | None = None
    direction: Direction | None = None
    from_number: str | None = None
    to_number: str | None = None
    started_at: datetime
    ended_at: datetime | None = None
    duration: float | None = None  #: seconds
    turn_count: int | None = None
    interruption_count: int | None = None
    tool_call_count: int | None = None
    error_count: int | None = None


class Filters(Model):
    limit: int = 20
    before: datetime | None = None
    since: datetime | None = None
    agent: str | None = None
    outcome: CallOutcome | None = None
    status: CallStatus | None = None
    live: bool = False  #: only calls whose workflow runs


def quoted(text: str) -> str:
    """A string in Temporal's list filter; quotes cannot end it."""
    return "'" + text.replace("\\", "\\\\").replace("'", "\\'") + "'"


def condition(filters: Filters) -> str:
    conditions = [f"WorkflowType = '{CALL_WORKFLOW}'"]
    if filters.agent is not None:
        conditions.append(f"{SA_AGENT} = {quoted(filters.agent)}")
    if filters.outcome is not None:
        conditions.append(f"{SA_OUTCOME} = {quoted(filters.outcome)}")
    if filters.status is not None:
        conditions.append(f"{SA_STATUS} = {quoted(filters.status)}")
    if filters.before is not None:
        conditions.append(f"StartTime < '{filters.before.astimezone(UTC).isoformat()}'")
    if filters.since is not None:
        conditions.append(f"StartTime >= '{filters.since.astimezone(UTC).isoformat()}'")
    return " AND ".join(conditions)


def of_execution(execution: WorkflowExecution) -> ListedCall:
    def attribute(name: str) -> str | None:
        return execution.typed_search_attributes.get(SearchAttributeKey.for_keyword(name))

    running = execution.status == WorkflowExecutionStatus.RUNNING
    odd = not running and execution.status not in (
        WorkflowExecutionStatus.COMPLETED,
        WorkflowExecutionStatus.CONTINUED_AS_NEW,
    )
    ended = execution.close_time
    status = attribute(SA_STATUS) or ("active" if running else "ended")
    return ListedCall.model_validate(
        {
            "call_id": execution.id.removeprefix(ID_PREFIX),
            "running": running,
            "source": "temporal",
            "status": status if running else "ended",
            "outcome": attribute(SA_OUTCOME),
            "closed_as": execution.status.name.lower() if odd and execution.status else None,
            "agent": attribute(SA_AGENT),
            "mode": attribute(SA_MODE),
            "direction": attribute(SA_DIRECTION),
            "started_at": execution.start_time,
            "ended_at": ended,
            "duration": (ended - execution.start_time).total_seconds() if ended else None,
        }
    )


def of_summary(call: CallSummary) -> ListedCall:
    values = {name: getattr(call, name) for name in ListedCall.model_fields if hasattr(call, name)}
    return ListedCall.model_validate({**values, "running": False, "source": "database"})


def of_snapshot(snapshot: CallSnapshot) -> ListedCall:
    values = {name: getattr(snapshot, name) for name in ListedCall.model_fields if hasattr(snapshot, name)}
    counts = snapshot.metrics.model_dump(include=set(ListedCall.model_fields))
    call = snapshot.call.model_dump(include={"call_id", "direction", "from_number", "to_number"})
    return ListedCall.model_validate({**values, **counts, **call, "running": True, "source": "temporal"})


def overlay(known: ListedCall, live: ListedCall) -> ListedCall:
    """A running call of which the database has a provisional record: the workflow knows better."""
    said = {name: value for name, value in live.model_dump().items() if value is not None}
    return known.model_copy(update=said)


# --- what a person asks for -----------------------------------------------------------------------------


def read_filters(
    *,
    limit: int = 20,
    live: bool = False,
    agent: str | None = None,
    outcome: str | None = None,
    status: str | None = None,
    since: str | None = None,
    before: str | None = None,
) -> Filters:
    """The options of `calls list`, checked.

    Raises:
        UsageError: a value that does not exist, with those that do.
    """
    for name, given, known in (
        ("outcome", outcome, get_args(CallOutcome)),
        ("status", status, get_args(CallStatus)),
    ):
        if given is not None and given not in known:
            raise UsageError(f"There is no {name} {given!r}.", fix=f"One of: {', '.join(known)}.")
    return Filters.model_validate(
        {
            "limit": limit,
            "live": live,
            "agent": agent,
            "outcome": outcome,
            "status": status,
            "since": None if since is None else moment(since),
            "before": None if before is None else moment(before),
        }
    )


_UNITS = {"s": "seconds", "m": "minutes", "h": "hours", "d": "days", "w": "weeks"}


def moment(text: str, now: datetime | None = None) -> datetime:
    """`2h` (ago), `2026-11-22`, `2026-11-22T09:41`; in this machine's time zone unless it says another.

    Raises:
        UsageError: it is neither.
    """
    given = text.strip()
    if match := re.fullmatch(r"(\d{1,6})([smhdw])", given):
        try:
            return (now or datetime.now(UTC)) - timedelta(**{_UNITS[match.group(2)]: int(match.group(1))})
        except OverflowError:
            pass
    try:
        return datetime.fromisoformat(given).astimezone(UTC)
    except (ValueError, OverflowError) as error:
        raise UsageError(f"{text!r} is no time.", fix="Write 30m, 2h, 7d, or 2026-11-22T09:41.") from error

"""The tables. One row of `calls` per call; everything else hangs on it and goes with it.

`events` is the timeline as it is, one row per entry, and is what a record is rebuilt from. `sessions` and
`turns` say the same in columns, for people who ask questions in SQL. `tool_calls` and `tool_attempts` hold the
tools of the snapshot.
"""

from __future__ import annotations

from datetime import UTC, datetime
from typing import Any, Final

from sqlalchemy import JSON, BigInteger, DateTime, ForeignKey, ForeignKeyConstraint, Index, MetaData, Text
from sqlalchemy.engine import Dialect
from sqlalchemy.orm import DeclarativeBase, Mapped, mapped_column
from sqlalchemy.types import TypeDecorator

NAMES: Final = {
    "ix": "ix_%(table_name)s_%(column_0_N_name)s",
    "pk": "pk_%(table_name)s",
    "fk": "fk_%(table_name)s_%(referred_table_name)s",
}


class UtcDateTime(TypeDecorator[datetime]):
    """An aware datetime. SQLite keeps no zone: it is stored as UTC and read back as UTC."""

    impl = DateTime(timezone=True)
    cache_ok = True

    def process_bind_param(self, value: datetime | None, dialect: Dialect) -> datetime | None:
        if value is None:
            return None
        return value.replace(tzinfo=UTC) if value.tzinfo is None else value.astimezone(UTC)

    def process_result_value(self, value: datetime | None, dialect: Dialect) -> datetime | None:
        if value is None:
            return None
        return value.replace(tzinfo=UTC) if value.tzinfo is None else value.astimezone(UTC)


class CleanText(TypeDecorator[str]):
    """Text. PostgreSQL refuses U+0000, and one odd character must not keep a call out of its record."""

    impl = Text
    cache_ok = True

    def process_bind_param(self, value: str | None, dialect: Dialect) -> str | None:
        return None if value is None else value.replace("\x00", "\N{REPLACEMENT CHARACTER}")


class Base(DeclarativeBase):
    metadata = MetaData(naming_convention=NAMES)
    # JSON and not JSONB: JSONB refuses \u0000, and nothing here searches inside the values.
    # 64 bits for all whole numbers: milliseconds and tokens come from outside.
    type_annotation_map = {datetime: UtcDateTime, str: CleanText, int: BigInteger, dict[str, Any]: JSON}  # noqa: RUF012


class Call(Base):
    """A call: who, when, how it ended, and its metrics (names as in `stayline.timeline.CallMetrics`)."""

    __tablename__ = "calls"
    __table_args__ = (Index(None, "started_at"), Index(None, "agent", "started_at"))

    call_id: Mapped[str] = mapped_column(primary_key=True)
    final: Mapped[bool]  #: False: tools still ran when this was written
    from_number: Mapped[str]
    to_number: Mapped[str]
    direction: Mapped[str]
    carrier: Mapped[str]
    carrier_call_id: Mapped[str] = mapped_column(server_default="")  #: where it is not `call_id`
    carrier_started_at: Mapped[datetime]  #: as the carrier says it
    carrier_agent: Mapped[str]  #: the agent that the call was routed to
    agent: Mapped[str]
    mode: Mapped[str]
    status: Mapped[str]
    outcome: Mapped[str | None]
    session: Mapped[int]  #: the last one
    bridge_id: Mapped[str | None]
    started_at: Mapped[datetime]
    answered_at: Mapped[datetime | None]
    ended_at: Mapped[datetime | None]
    seconds_left: Mapped[float | None]
    timeline_length: Mapped[int]
    run_count: Mapped[int]

    duration: Mapped[float]
    user_turn_count: Mapped[int]
    agent_turn_count: Mapped[int]
    turn_count: Mapped[int]
    interruption_count: Mapped[int]
    tool_call_count: Mapped[int]
    tool_attempt_count: Mapped[int]
    error_count: Mapped[int]
    session_count: Mapped[int]
    user_speech_duration_ms: Mapped[int]
    agent_speech_duration_ms: Mapped[int]
    avg_stt_latency_ms: Mapped[float | None]
    avg_llm_latency_ms: Mapped[float | None]
    avg_tts_latency_ms: Mapped[float | None]
    avg_total_latency_ms: Mapped[float | None]
    max_total_latency_ms: Mapped[int | None]
    input_tokens: Mapped[int]
    output_tokens: Mapped[int]
    session_duration_ms: Mapped[int] = mapped_column(server_default="0")
    audio_bytes_received: Mapped[int] = mapped_column(server_default="0")
    audio_bytes_sent: Mapped[int] = mapped_column(server_default="0")


def _of_call() -> Mapped[str]:
    return mapped_column(ForeignKey("calls.call_id", ondelete="CASCADE"), primary_key=True)


class Event(Base):
    """One timeline entry; `body` is the event as JSON."""

    __tablename__ = "events"

    call_id: Mapped[str] = _of_call()
    timeline_index: Mapped[int] = mapped_column(primary_key=True)
    session: Mapped[int]
    type: Mapped[str]
    at: Mapped[datetime]
    body: Mapped[dict[str, Any]]


class Session(Base):
    """One attachment of the call to a bridge."""

    __tablename__ = "sessions"

    call_id: Mapped[str] = _of_call()
    number: Mapped[int] = mapped_column(primary_key=True)
    bridge_id: Mapped[str]
    resumed: Mapped[bool]
    opened_at: Mapped[datetime | None]
    closed_at: Mapped[datetime | None]
    close_reason: Mapped[str | None]
    recording: Mapped[str]
    audio_in_ms: Mapped[int]
    audio_out_ms: Mapped[int]


class Turn(Base):
    """One committed utterance. `text` is what was heard; `generated` what would have been said."""

    __tablename__ = "turns"

    call_id: Mapped[str] = _of_call()
    timeline_index: Mapped[int] = mapped_column(primary_key=True)
    session: Mapped[int]
    at: Mapped[datetime]
    speaker: Mapped[str]  #: "user" or "agent"
    text: Mapped[str]
    generated: Mapped[str | None]
    interrupted: Mapped[bool]
    source: Mapped[str | None]  #: of an agent turn: reply, greeting, filler, …
    confidence: Mapped[float | None]
    speech_ms: Mapped[int]
    endpoint_ms: Mapped[int | None]
    llm_ms: Mapped[int | None]
    tts_ms: Mapped[int | None]
    total_ms: Mapped[int | None]


class ToolCallRow(Base):
    """A tool call, in the order of the call. `status` is null while it runs."""

    __tablename__ = "tool_calls"

    call_id: Mapped[str] = _of_call()
    position: Mapped[int] = mapped_column(primary_key=True)
    tool_call_id: Mapped[str]
    name: Mapped[str]
    arguments: Mapped[dict[str, Any]]
    session: Mapped[int]
    requested_at: Mapped[datetime]
    waiting_approval: Mapped[bool]
    after_hangup: Mapped[bool]
    status: Mapped[str | None]
    result: Mapped[Any] = mapped_column(JSON, nullable=True)
    error: Mapped[str | None]
    seconds: Mapped[float | None]


class ToolAttemptRow(Base):
    """One attempt of a tool call; `error` is null for the one that succeeded."""

    __tablename__ = "tool_attempts"
    __table_args__ = (
        ForeignKeyConstraint(
            ["call_id", "tool_position"], ["tool_calls.call_id", "tool_calls.position"], ondelete="CASCADE"
        ),
    )

    call_id: Mapped[str] = mapped_column(primary_key=True)
    tool_position: Mapped[int] = mapped_column(primary_key=True)
    position: Mapped[int] = mapped_column(primary_key=True)
    number: Mapped[int]
    started_at: Mapped[datetime | None]
    seconds: Mapped[float | None]
    error: Mapped[str | None]

"""Taking in a bridge's records: each event once, whatever is sent twice, late or out of order."""

from __future__ import annotations

from datetime import datetime

from stayline.messages import Record
from stayline.timeline import AgentTurn, Dtmf, Interruption, RecordGap, SessionClosed, TimelineEvent, UserTurn
from workflows.state import CallState, Session


def take_record(state: CallState, record: Record, now: datetime) -> None:
    """Add the events that are new. Records of sessions that are over are as welcome as others.

    Raises:
        ValueError: there is no such session, or the numbering makes no sense.
    """
    session = state.session(record.session)
    if session is None:
        raise ValueError(f"a record of session {record.session}, which does not exist")
    if record.first_seq < 1:
        raise ValueError(f"a record numbered {record.first_seq}; numbers begin with 1")
    _count_audio(session, record.audio_in_ms, record.audio_out_ms)
    for seq, event in enumerate(record.events, record.first_seq):
        if not _is_new(state, session, seq, now):
            continue
        state.add(event, session.number)
        _apply(state, session, event, now)


def _is_new(state: CallState, session: Session, seq: int, now: datetime) -> bool:
    if seq < session.next_seq:
        if seq not in session.missing:
            return False
        session.missing.remove(seq)
        return True
    if seq > session.next_seq:
        session.missing.extend(range(session.next_seq, seq))
        state.add(RecordGap(at=now, session=session.number, first=session.next_seq, last=seq - 1))
    session.next_seq = seq + 1
    return True


def _apply(state: CallState, session: Session, event: TimelineEvent, now: datetime) -> None:
    """What an event means beyond being in the record."""
    if isinstance(event, UserTurn | Interruption | Dtmf):
        state.heard(now)
    elif isinstance(event, AgentTurn):
        if event.source != "silence":
            state.heard(now)
    elif isinstance(event, SessionClosed):
        _count_audio(session, event.audio_in_ms, event.audio_out_ms)
        session.closed_by_record = True
        session.closed = session.closed or event.reason
        if session is state.attached:
            state.detach(event.reason, now)
        if event.reason == "stopped" and state.ending is not None:
            state.left_at = state.left_at or now


def _count_audio(session: Session, in_ms: int, out_ms: int) -> None:
    """Records say how much there has been; one that comes late knows less."""
    session.audio_in_ms = max(session.audio_in_ms, in_ms)
    session.audio_out_ms = max(session.audio_out_ms, out_ms)

"""Records of a session on their way to its workflow: in order, numbered, never waited for.

One task per call sends what has gathered. When Temporal does not take them at once, the waiting records are also
kept in a spool file, and are sent from there when the session (or the process) is gone. Numbers make a record
that arrives twice harmless.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
import re
from collections import deque
from collections.abc import Callable
from pathlib import Path

import structlog
from temporalio.client import Client
from temporalio.service import RPCError, RPCStatusCode

from stayline import telemetry
from stayline.messages import Record
from stayline.names import call_workflow_id
from stayline.timeline import Interruption, TimelineEvent, Usage, UserTurn

log = structlog.get_logger(__name__)

BATCH = 50
"""Events in one signal at most."""
GATHER_SECONDS = 0.03
GATHERED = (Interruption, UserTurn)
"""An interruption and the turn that it cuts come together; they share a signal. And what is to be sent of a turn of
the caller, and what Temporal then does, does not compete with the answer to it."""
PATIENT = (Usage,)
"""Events that nobody waits for: they travel with the next one."""
REFUSED = (RPCStatusCode.NOT_FOUND, RPCStatusCode.INVALID_ARGUMENT)
"""The call's workflow is closed, or Temporal will never take this: set aside for a person, not tried again."""
KEEP_AFTER = 0.3
"""Seconds that a signal may take; then the bridge might die before Temporal has it. It takes 3 to 6 ms."""
RETRY_SECONDS = 0.5
_NUMBER = re.compile(r"[0-9]{1,9}")
RESEND_SECONDS = 2.0


class RecordSender:
    """Sends one session's events. `put` never blocks; `run` sends until cancelled; `close` sends the rest.

    Args:
        audio_ms: how much the caller and the agent have been heard so far; travels with every batch.
    """

    def __init__(
        self,
        client: Client,
        call_id: str,
        session: int,
        spool_dir: Path,
        audio_ms: Callable[[], tuple[int, int]] = lambda: (0, 0),
    ) -> None:
        self._client = client
        self._call_id = call_id
        self._session = session
        self._audio_ms = audio_ms
        self._spool = spool_dir / f"{call_id}.{session}.json"
        self._waiting: deque[TimelineEvent] = deque()
        self._first_seq = 1  #: number of the first waiting event
        self._at_once = BATCH
        self._kept_to = 0  #: number of the last event that is in the spool file
        self._late = False  #: Temporal is slow or away: what is put from now on is kept as well
        self._more = asyncio.Event()
        self._hurry = asyncio.Event()  #: somebody waits for it
        self._sent = asyncio.Event()

    def put(self, event: TimelineEvent) -> None:
        self._waiting.append(event)
        if self._late:
            self._keep()
        telemetry.metrics.records_waiting(1)
        if not isinstance(event, PATIENT):
            self._more.set()

    async def run(self) -> None:
        while True:
            await self._more.wait()
            self._more.clear()  # not before: what was put before this task began must not be forgotten
            if self._waiting and isinstance(self._waiting[0], GATHERED):
                with contextlib.suppress(TimeoutError):
                    async with asyncio.timeout(GATHER_SECONDS):
                        await self._hurry.wait()
            while self._pressing:
                await self._send_batch()
            self._hurry.clear()

    @property
    def _pressing(self) -> bool:
        """Something waits that is not to wait. What may goes with it: a signal of its own would cost as much."""
        return any(not isinstance(event, PATIENT) for event in self._waiting)

    async def caught_up(self, timeout: float) -> None:
        """Wait until what was put so far is sent, but no longer than `timeout` seconds."""
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(timeout):
                while self._pressing:
                    self._sent.clear()
                    self._hurry.set()
                    self._more.set()
                    await self._sent.wait()

    async def close(self, timeout: float) -> None:
        """Send what waits; what cannot be sent within `timeout` seconds stays in the spool."""
        if not self._waiting:
            return
        self._keep()
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(timeout):
                while self._waiting:
                    await self._send_batch()
        if self._waiting:
            log.warning("records_spooled", waiting=len(self._waiting))
            telemetry.metrics.records_waiting(-len(self._waiting))  # the spool's, not this sender's, from now on

    async def _send_batch(self) -> None:
        events = tuple(list(self._waiting)[: self._at_once])
        record = self._record(events)
        late = asyncio.get_running_loop().call_later(KEEP_AFTER, self._be_late)
        try:
            await send(self._client, self._call_id, record)
        except RPCError as error:
            if error.status in REFUSED and self._sent_by_another(len(events)):
                log.info("records_resent_by_another_bridge", events=len(events))
            elif error.status in REFUSED:
                log.error("records_refused", status=error.status.name, events=len(events))
                _write(self._spool.with_suffix(f".{self._first_seq}.refused"), record)
            else:
                self._keep()
                await asyncio.sleep(RETRY_SECONDS)
                return
        except Exception as error:  # one event of these cannot be sent; the others must not be lost with it
            if len(events) > 1:
                self._at_once = 1
                return
            log.error("record_not_sendable", kind=type(error).__name__, of=events[0].type)
        finally:
            late.cancel()
        for _ in events:
            self._waiting.popleft()
        self._first_seq += len(events)
        telemetry.metrics.records_waiting(-len(events))
        if not self._waiting:
            self._at_once = BATCH
            self._late = False
            with contextlib.suppress(OSError):
                self._spool.unlink(missing_ok=True)
        self._sent.set()

    def _be_late(self) -> None:
        self._late = True
        self._keep()

    def _keep(self) -> None:
        """Write all waiting events to the spool, unless it has had them: another bridge may have sent what was
        there. Small and rare, so it is done in place."""
        last = self._first_seq + len(self._waiting) - 1
        if last > self._kept_to and _write(self._spool, self._record(tuple(self._waiting))):
            self._kept_to = last

    def _sent_by_another(self, events: int) -> bool:
        """The first so many of those that wait were in the spool file, which another bridge has sent: it takes a
        file away only then."""
        return self._kept_to >= self._first_seq + events - 1 and not self._spool.exists()

    def _record(self, events: tuple[TimelineEvent, ...]) -> Record:
        heard, spoken = self._audio_ms()
        return Record(
            session=self._session,
            first_seq=self._first_seq,
            events=events,
            audio_in_ms=heard,
            audio_out_ms=spoken,
        )


def _write(path: Path, record: Record) -> bool:
    """Write a record to a file, whole or not at all. Whether it is there now."""
    part = path.with_suffix(".part")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        part.write_text(record.model_dump_json())
        part.replace(path)
    except OSError as error:
        log.error("spool_not_writable", error=error.strerror)
        with contextlib.suppress(OSError):  # what a full disk has taken of it
            part.unlink(missing_ok=True)
    except ValueError as error:  # an event that is no JSON
        log.error("record_not_writable", kind=type(error).__name__)
    else:
        return True
    return False


async def send(client: Client, call_id: str, record: Record) -> None:
    await client.get_workflow_handle(call_workflow_id(call_id)).signal("record", record)


class SpoolResender:
    """Sends what earlier sessions and processes left in the spool. One per process.

    `busy` says which sessions of this process still send their own records.
    """

    def __init__(self, client: Client, spool_dir: Path) -> None:
        self._client = client
        self._dir = spool_dir
        self.busy: set[tuple[str, int]] = set()

    async def run(self) -> None:
        """For ever. What one file, or the folder, is wrong with must end neither this nor the bridge."""
        while True:
            try:
                for path in sorted(self._dir.glob("*.json")) if self._dir.is_dir() else []:
                    await self._resend(path)
            except Exception:
                log.exception("spool_not_sent")
            await asyncio.sleep(RESEND_SECONDS)

    async def _resend(self, path: Path) -> None:
        call_id, _, session = path.stem.rpartition(".")
        if not _NUMBER.fullmatch(session) or (call_id, int(session)) in self.busy:
            return
        try:
            text = path.read_text()
            whole = Record.model_validate_json(text)
            for start in range(0, len(whole.events), BATCH):
                part = whole.events[start : start + BATCH]
                await send(
                    self._client,
                    call_id,
                    Record(session=whole.session, first_seq=whole.first_seq + start, events=part),
                )
            if path.read_text() != text:  # its session lives in another bridge, and has added to it
                return
        except RPCError as error:
            if error.status not in REFUSED:
                return  # Temporal is away: the next round tries again
            with contextlib.suppress(FileNotFoundError):  # another bridge with this folder was quicker
                path.replace(path.with_suffix(".refused"))
                log.error("records_refused", status=error.status.name, file=path.name)
        except FileNotFoundError:  # whoever wrote it has sent it in the meantime
            return
        except (OSError, ValueError, json.JSONDecodeError):
            log.error("spool_file_unreadable", file=path.name)
            with contextlib.suppress(OSError):
                path.replace(path.with_suffix(".bad"))
        else:
            path.unlink(missing_ok=True)
            log.info("records_resent", file=path.name)

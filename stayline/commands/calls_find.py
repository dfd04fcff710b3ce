"""Finding calls: in Temporal while it knows them, else in the database. Either may be away."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import asynccontextmanager
from typing import TYPE_CHECKING, Literal

from temporalio.client import (
    Client,
    WorkflowExecution,
    WorkflowExecutionDescription,
    WorkflowExecutionStatus,
    WorkflowQueryFailedError,
    WorkflowQueryRejectedError,
)
from temporalio.service import RPCError, RPCStatusCode

from stayline import temporal
from stayline.commands.calls_listed import (
    Filters,
    ListedCall,
    condition,
    of_execution,
    of_snapshot,
    of_summary,
    overlay,
    quoted,
)
from stayline.commands.calls_temporal import (
    ID_PREFIX,
    PATIENCE,
    PendingTool,
    pending_tools,
    query_record,
    temporal_away,
)
from stayline.commands.terminal import UsageError
from stayline.errors import ConfigError, StaylineError
from stayline.models import Model
from stayline.names import CALL_WORKFLOW
from stayline.settings import Settings
from stayline.timeline import CallRecord, CallSnapshot

if TYPE_CHECKING:
    from activities.records_db import CallStore, CallSummary


class FoundCall(Model):
    """A call as it could be read, and from where."""

    record: CallRecord
    source: Literal["live", "history", "database"]
    retried: tuple[PendingTool, ...] = ()  #: tools that run and have failed before
    ui_url: str = ""


SOURCES = {
    "live": "the running workflow",
    "history": "the closed workflow, by Temporal's history",
    "database": "the call records database",
}


class Calls:
    """Temporal and the database, as far as they answer; what does not is in `away`."""

    def __init__(
        self,
        client: Client | None,
        open_store: Callable[[], CallStore] | None,
        away: Sequence[StaylineError] = (),
    ) -> None:
        self._client = client
        self._open_store = open_store
        self._opened: CallStore | None = None
        self.away: list[StaylineError] = list(away)

    async def close(self) -> None:
        if self._opened is not None:
            await self._opened.close()

    @property
    def _store(self) -> CallStore | None:
        """The database, opened when it is first needed: a live call is found and steered without it."""
        if self._opened is None and self._open_store is not None:
            self._opened = self._open_store()
        return self._opened if self._open_store is not None else None

    @property
    def client(self) -> Client:
        """The connection to Temporal.

        Raises:
            StaylineError: it is away.
        """
        if self._client is None:
            raise self.away[0] if self.away else StaylineError("Temporal does not answer.", retryable=True)
        return self._client

    # --- one call ----------------------------------------------------------------------------------------

    async def resolve(self, given: str, *, live: bool = False) -> str:
        """The call id that a person meant: an id, its unique beginning, or `last`.

        Args:
            live: `last` is the newest call that goes on, if there is one.

        Raises:
            UsageError: there is no such call, or several.
        """
        text = given.strip().removeprefix(ID_PREFIX)
        if not text:
            raise UsageError("An empty call id names no call.", fix="`stayline calls list` shows the calls.")
        if text == "last":
            return await self._newest(live)
        found = await self._ids_beginning_with(text)
        if not found:
            self._raise_if_all_away()
        if text in found:
            return text
        if len(found) == 1:
            return found[0]
        if found:
            shown = ", ".join(found[:5]) + (", …" if len(found) > 5 else "")
            raise UsageError(f"{text!r} is the beginning of several calls: {shown}.", fix="Give more of the id.")
        raise UsageError(f"There is no call {text!r}{self._as_far_as_known()}.", fix=self._where_to_look())

    async def read(self, call_id: str) -> FoundCall:
        """Everything about a call: from its running workflow, else its final record, else its history.

        Raises:
            UsageError: nobody knows the call.
            StaylineError: it is known, but cannot be read now.
        """
        description = await self._describe(call_id)
        url = temporal.ui_url(self._client, ID_PREFIX + call_id) if description and self._client else ""
        running = description is not None and description.status == WorkflowExecutionStatus.RUNNING
        saved = None
        if not running:
            saved = await self._saved(call_id)
            if saved is not None and saved.final:
                return FoundCall(record=saved, source="database", ui_url=url)
        if description is not None and self._client is not None:
            try:
                handle = self._client.get_workflow_handle(ID_PREFIX + call_id)
                record = await query_record(handle, final=not running)
            except StaylineError:
                saved = saved or await self._saved(call_id)
                if saved is None:
                    raise
            else:
                return FoundCall(
                    record=record,
                    source="live" if running else "history",
                    retried=tuple(await pending_tools(description)),
                    ui_url=url,
                )
        if saved is not None:
            return FoundCall(record=saved, source="database", ui_url=url)
        self._raise_if_all_away()
        raise UsageError(f"There is no call {call_id!r}{self._as_far_as_known()}.", fix=self._where_to_look())

    async def _saved(self, call_id: str) -> CallRecord | None:
        if self._store is None:
            return None
        try:
            return await self._store.get_call(call_id)
        except StaylineError as error:
            self._lose_store(error)
            return None

    async def _describe(self, call_id: str) -> WorkflowExecutionDescription | None:
        if self._client is None:
            return None
        try:
            async with asyncio.timeout(PATIENCE):
                return await self._client.get_workflow_handle(ID_PREFIX + call_id).describe()
        except (RPCError, TimeoutError) as error:
            if isinstance(error, RPCError) and error.status == RPCStatusCode.NOT_FOUND:
                return None
            self._lose_temporal(error)
            return None

    async def _newest(self, live: bool) -> str:
        calls = await self.list_calls(Filters(limit=1, live=True)) if live else []
        calls = calls or await self.list_calls(Filters(limit=1))
        if not calls:
            raise UsageError(f"There are no calls{self._as_far_as_known()}.", fix="`stayline demo` places one.")
        return calls[0].call_id

    async def _ids_beginning_with(self, text: str) -> list[str]:
        query = f"WorkflowType = '{CALL_WORKFLOW}' AND WorkflowId STARTS_WITH {quoted(ID_PREFIX + text)}"
        found = [execution.id.removeprefix(ID_PREFIX) for execution in await self._visible(query, 10)]
        # A call that began this moment is not in visibility yet.
        if text in found or await self._describe(text) is not None:
            return [text]
        if self._store is not None:
            try:
                found += await self._store.find_ids(text)
            except StaylineError as error:
                self._lose_store(error)
        return list(dict.fromkeys(found))

    def _as_far_as_known(self) -> str:
        """What an answer leaves out because somebody is away."""
        missing = [
            name
            for name, part in (("Temporal", self._client), ("the call records", self._open_store))
            if part is None
        ]
        return f" ({' and '.join(missing)} could not be asked)" if missing else ""

    def _where_to_look(self) -> str:
        return self.away[0].message if self.away else "`stayline calls list` shows the calls."

    # --- the list ----------------------------------------------------------------------------------------

    async def list_calls(self, filters: Filters) -> list[ListedCall]:
        """Calls of both sources, newest first.

        A running call is told by its workflow, an ended one by the database; a call that only Temporal knows
        (its record is not written yet, or the database is away) is listed by what its search attributes say.
        """
        wanted = condition(filters)
        running = await self._visible(f"{wanted} AND ExecutionStatus = 'Running'", filters.limit)
        # A call that continued as new has closed runs behind its present one.
        over = f"{wanted} AND ExecutionStatus != 'Running' AND ExecutionStatus != 'ContinuedAsNew'"
        closed = [] if filters.live else await self._visible(over, filters.limit)
        calls = {call.call_id: call for call in map(of_execution, closed)}
        if not filters.live:
            calls |= {call.call_id: of_summary(call) for call in await self._stored(filters)}
        self._raise_if_all_away()
        for execution in running:
            call = of_execution(execution)
            known = calls.get(call.call_id)
            calls[call.call_id] = call if known is None else overlay(known, call)
        newest = sorted(calls.values(), key=lambda call: call.started_at, reverse=True)[: filters.limit]
        return await self._with_numbers(newest)

    async def _stored(self, filters: Filters) -> list[CallSummary]:
        if self._store is None:
            return []
        try:
            return await self._store.list_calls(
                limit=filters.limit,
                before=filters.before,
                agent=filters.agent,
                outcome=filters.outcome,
                status=filters.status,
                since=filters.since,
            )
        except StaylineError as error:
            self._lose_store(error)
            return []

    async def _visible(self, query: str, limit: int) -> list[WorkflowExecution]:
        if self._client is None:
            return []
        try:
            async with asyncio.timeout(PATIENCE):
                return [execution async for execution in self._client.list_workflows(query, limit=limit)]
        except (RPCError, TimeoutError) as error:
            if isinstance(error, RPCError) and error.status == RPCStatusCode.INVALID_ARGUMENT:
                self._lose_temporal(
                    StaylineError(
                        "Temporal's namespace does not know Stayline's search attributes.",
                        fix="They are registered when `stayline worker` or `stayline dev` starts.",
                    )
                )
            else:
                self._lose_temporal(error)
            return []

    async def _with_numbers(self, calls: Sequence[ListedCall]) -> list[ListedCall]:
        """Ask running calls for what search attributes do not hold: who calls, and the counts so far."""
        client = self._client

        async def ask(call: ListedCall) -> ListedCall:
            if client is None or not call.running:
                return call
            try:
                async with asyncio.timeout(PATIENCE / 2):
                    handle = client.get_workflow_handle(ID_PREFIX + call.call_id)
                    return of_snapshot(await handle.query("snapshot", result_type=CallSnapshot))
            except (RPCError, TimeoutError, WorkflowQueryFailedError, WorkflowQueryRejectedError):
                return call  # no worker answers for it; the list is still right

        return list(await asyncio.gather(*map(ask, calls)))

    def _raise_if_all_away(self) -> None:
        if self._client is None and self._open_store is None:
            raise StaylineError(
                "Neither Temporal nor the call records database can be reached.",
                fix=" ".join(str(error) for error in self.away),
                retryable=True,
            )

    def _lose_temporal(self, error: StaylineError | RPCError | TimeoutError) -> None:
        self._client = None
        self.away.append(error if isinstance(error, StaylineError) else temporal_away(error))

    def _lose_store(self, error: StaylineError) -> None:
        self._open_store = None
        self.away.append(error)


@asynccontextmanager
async def open_calls(settings: Settings) -> AsyncIterator[Calls]:
    """Both sources. A wrong configuration raises; a source that is away is noted in `Calls.away`.

    Raises:
        StaylineError: neither source can be reached.
    """

    def open_store() -> CallStore:
        from activities.records_db import CallStore  # SQLAlchemy: half a second

        return CallStore(settings.database)

    away: list[StaylineError] = []
    client = None
    try:
        client = await temporal.connect(settings)
    except ConfigError:
        raise
    except StaylineError as error:
        away.append(error)
    calls = Calls(client, open_store, away)
    try:
        yield calls
    finally:
        await calls.close()

"""A call as a bridge drives it, without audio: the bridge's own code for every message, in the order it sends them.

Webhook (`admission.admit`), stream (`CallLink.open_session`), records (`RecordSender`, which batches as in any
session), tools (`CallLink.run_tool`, after the records before it). What a session of a real bridge records in an
exchange is: the caller's turn when it is over; with a tool, the use of the first reply; then use and turn of the
agent, when the caller has heard it. `tests/benchmarks` compares it with a call through a real bridge.
"""

from __future__ import annotations

import asyncio
import contextlib
import random
import time
import uuid
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from datetime import UTC, datetime
from pathlib import Path

from temporalio.client import Client

from benchmarks.durable_bridge_calls import ANSWER, SAYS
from media_bridge import admission
from media_bridge.call_link import CallLink
from media_bridge.conversation.pipeline import RECORD_PATIENCE
from media_bridge.records import RecordSender
from stayline.agent import Agent
from stayline.messages import CallResult, CarrierStatus, OpenSession
from stayline.models import CallInfo, ToolCall, ToolOutcome
from stayline.names import call_workflow_id
from stayline.settings import Settings
from stayline.timeline import AgentTurn, SessionClosed, TurnLatency, Usage, UserTurn

BRIDGE = "bench-0000"
WORDS = (
    "the to a and of I you it is in that was for on my with have not be at we this order as they will are can from "
    "please your our what when where there number address house street delivered driver morning afternoon Tuesday "
    "Wednesday tomorrow yesterday week parcel box broken missing instead of blue twelve nineteen forty account "
    "bill paid charged twice refund card bank name spelled email phone call back wait moment look again sorry thank"
)
LATENCY = TurnLatency(endpoint_ms=310, llm_ms=280, tts_ms=120, total_ms=720)


class Line:
    """One call. Made by `line`."""

    def __init__(self, client: Client, agent: Agent, settings: Settings) -> None:
        self.call_id = "CA" + uuid.uuid4().hex
        self.workflow_id = call_workflow_id(self.call_id)
        self.tool_ms: list[float] = []  #: of each tool call, from the bridge's question to the outcome there
        self._seed = 0
        self._client = client
        self._agent = agent
        self._settings = settings
        self._link = CallLink(client, self.call_id)
        self._records: RecordSender
        self._sending: asyncio.Task[None]

    async def begin(self) -> None:
        now = datetime.now(UTC)
        call = CallInfo(
            call_id=self.call_id,
            from_number="+15550100001",
            to_number="+15550100002",
            direction="inbound",
            carrier="lab",
            started_at=now,
            agent=self._agent.name,
        )
        _, hashed = admission.new_token()
        caller = "0123456789abcdef"
        answer = await admission.admit(self._client, self._settings, BRIDGE, call, self._agent, caller, hashed)
        assert answer.accepted, answer
        ask = OpenSession(token_sha256=hashed, bridge_id=BRIDGE, stream_id="MZ" + uuid.uuid4().hex)
        grant = await self._link.open_session(ask, 30)
        self._records = RecordSender(self._client, self.call_id, grant.session, self._settings.spool_dir)
        self._sending = asyncio.create_task(self._records.run())

    async def turns(self, gap: float, tool: bool) -> None:
        """One exchange: the caller speaks for `gap` seconds, and so does the agent.

        A turn is sent when the next one ends, however short the gap is made: in a real one it has long been.
        """
        await asyncio.sleep(gap)
        await self.caught_up()
        self._records.put(UserTurn(at=datetime.now(UTC), text=self._words(SAYS), confidence=0.98, speech_ms=5200))
        asked: tuple[str, ...] = ()
        if tool:
            self._use(0)
            asked = ((await self.tool()).id,)
        self._use(26)
        await asyncio.sleep(gap)
        await self.caught_up()
        self._records.put(
            AgentTurn(
                at=datetime.now(UTC), text=self._words(ANSWER), speech_ms=6100, latency=LATENCY, tool_calls=asked
            )
        )

    def _words(self, like: str) -> str:
        """As long as that, and never the same: one sentence, said 200 times, would deflate to nothing."""
        self._seed += 1
        chosen, words = random.Random(self._seed), WORDS.split()
        text = ""
        while len(text) < len(like):
            text += f" {chosen.choice(words)}"
        return text.strip()

    def _use(self, output: int) -> None:
        now = datetime.now(UTC)
        self._records.put(
            Usage(at=now, provider="openai", model="gpt-6-luna", input_tokens=900, output_tokens=output)
        )

    async def tool(self) -> ToolOutcome:
        """As `Pipeline` runs one: the records before it are sent first."""
        await self._records.caught_up(RECORD_PATIENCE)
        call = ToolCall(id="call_" + uuid.uuid4().hex[:24], name="look_up", arguments={"order": "A-1002"})
        begun = time.perf_counter()
        outcome = await self._link.run_tool(1, call)
        self.tool_ms.append((time.perf_counter() - begun) * 1000)
        assert outcome.status == "succeeded", outcome
        return outcome

    async def caught_up(self) -> None:
        await self._records.caught_up(60)

    async def end(self) -> CallResult:
        """The caller hangs up; the call's workflow has come to its end."""
        self._sending.cancel()
        with contextlib.suppress(asyncio.CancelledError):
            await self._sending
        self._records.put(SessionClosed(at=datetime.now(UTC), session=1, reason="stopped"))
        await self._records.close(30)
        await admission.carrier_status(self._client, self.call_id, CarrierStatus(status="completed"), 30)
        handle = self._client.get_workflow_handle(self.workflow_id, result_type=CallResult)
        result: CallResult = await handle.result()
        return result


@asynccontextmanager
async def line(client: Client, agent: Agent, folder: Path) -> AsyncIterator[Line]:
    """A call that has begun. It is ended afterwards if the caller of this has not ended it."""
    call = Line(client, agent, Settings(data_dir=folder, carrier="lab"))
    await call.begin()
    try:
        yield call
    finally:
        if not call._sending.done():
            await call.end()

"""One reply of the language model, from the first provider that gives one."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncGenerator, AsyncIterator, Callable, Sequence
from datetime import UTC, datetime
from typing import Final, cast

from media_bridge.conversation import events as ev
from media_bridge.conversation.history import CUT_OFF
from media_bridge.providers.base import LlmEvent, LlmProvider, LlmRequest, LlmUsage, TextDelta, ToolCallDelta
from media_bridge.providers.fallback import Failed, Lineup, understood
from stayline.errors import StaylineError
from stayline.messages import Grant
from stayline.models import AgentMessage, AgentSpec, Message, NoteMessage, ToolSpec
from stayline.timeline import Usage

TOKEN_TIMEOUT: Final = 10.0
"""Seconds to the first token, and between tokens."""
FIRST_TOKEN_TIMEOUT: Final = 6.0
"""Seconds to the first token where another model can be asked."""


class ReplyFailure(StaylineError):
    """No language model gave a whole reply."""


def tools_for(agent: AgentSpec) -> tuple[ToolSpec, ...]:
    """The agent's tools and the ones that Stayline gives every model."""
    tools = list(agent.tools)
    if agent.can_end_call:
        tools.append(
            ToolSpec(
                name="end_call",
                description="End the phone call when the caller is done. Say goodbye in the reply, or in `say`.",
                parameters={
                    "type": "object",
                    "properties": {"say": {"type": "string", "description": "Last words, if not said already."}},
                    "additionalProperties": False,
                },
            )
        )
    if agent.transfers:
        to = {"type": "string", "enum": sorted(agent.transfers), "description": "Whom to connect the caller to."}
        tools.append(
            ToolSpec(
                name="transfer_call",
                description="Connect the caller to a person. The caller is told; do not announce it yourself.",
                parameters={
                    "type": "object",
                    "properties": {"to": to},
                    "required": ["to"],
                    "additionalProperties": False,
                },
            )
        )
    return tuple(tools)


async def stream_reply(
    providers: Lineup[LlmProvider],
    grant: Grant,
    reply: int,
    messages: Sequence[Message],
    failed: Failed,
    serves: Callable[[str], None],
) -> AsyncIterator[ev.ReplyText | ev.ReplyTool | Usage]:
    """Stream one reply. Where a model breaks off in mid-sentence the next one goes on from there.

    Args:
        serves: told who gives the reply, when the first of it is there.
    Raises:
        ReplyFailure: every provider failed, or one failed when it had asked for tools already.
    """
    tools = tools_for(grant.agent)
    used = {c.id for m in messages if isinstance(m, AgentMessage) for c in m.tool_calls}
    said = ""
    order = providers.order()
    for member in order:
        begun = called = False
        cut: list[Message] = [AgentMessage(text=said, interrupted=True), NoteMessage(text=CUT_OFF)] if said else []
        request = LlmRequest(grant.agent.instructions, [*messages, *cut], tools, grant.call.call_id)
        first = FIRST_TOKEN_TIMEOUT if len(order) > 1 else TOKEN_TIMEOUT
        try:
            async for event in _timed(member.provider.stream(request), first):
                if not begun:
                    begun = True
                    providers.worked(member)
                    serves(member.ref)
                match event:
                    case TextDelta(text):
                        if said and not called and _needs_space(said, text):
                            text = f" {text}"
                        said += text
                        yield ev.ReplyText(reply, text)
                    case ToolCallDelta(call, malformed):
                        called = True
                        if call.id in used:  # some servers number their calls anew in every reply
                            call = call.model_copy(update={"id": f"{call.id}-{grant.session}-{reply}"})
                        used.add(call.id)
                        yield ev.ReplyTool(reply, call, malformed is not None)
                    case LlmUsage() if event.input_tokens or event.output_tokens:
                        name, _, model = member.ref.partition("/")
                        yield Usage(
                            at=datetime.now(UTC),
                            provider=name,
                            model=model,
                            input_tokens=event.input_tokens,
                            output_tokens=event.output_tokens,
                            cached_tokens=event.cached_tokens,
                        )
                    case _:
                        pass
            return
        except Exception as error:
            failure = understood(member.ref, error)
            providers.failed(member, failure)
            failed("llm", failure)
        if called:
            break
    raise ReplyFailure("No language model gave a whole reply.", retryable=True)


def _needs_space(said: str, text: str) -> bool:
    """Whether a sentence that another model goes on with would run into what was said."""
    return not said[-1].isspace() and text[:1].isalnum() and said.endswith((".", "!", "?", ",", ";", ":"))


async def _timed(stream: AsyncIterator[LlmEvent], first: float) -> AsyncIterator[LlmEvent]:
    timeout = first
    async with contextlib.aclosing(cast(AsyncGenerator[LlmEvent, None], stream)):
        while True:
            try:
                async with asyncio.timeout(timeout):
                    event = await anext(stream)
            except StopAsyncIteration:
                return
            timeout = TOKEN_TIMEOUT
            yield event

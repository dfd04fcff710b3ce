"""One reply of the language model, from the first provider that gives one."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncGenerator, AsyncIterator, Sequence
from datetime import UTC, datetime
from typing import Final, cast

from media_bridge.conversation import events as ev
from media_bridge.providers.base import LlmEvent, LlmProvider, LlmRequest, LlmUsage, TextDelta, ToolCallDelta
from media_bridge.providers.fallback import Failed, understood
from stayline.errors import StaylineError
from stayline.messages import Grant
from stayline.models import AgentMessage, AgentSpec, Message, ToolSpec
from stayline.timeline import Usage

TOKEN_TIMEOUT: Final = 10.0
"""Seconds to the first token, and between tokens."""


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
    providers: Sequence[LlmProvider],
    grant: Grant,
    reply: int,
    messages: Sequence[Message],
    failed: Failed,
) -> AsyncIterator[ev.ReplyText | ev.ReplyTool | Usage]:
    """Stream one reply; the next provider is tried as long as nothing was said yet.

    Raises:
        ReplyFailure: every provider failed, or one failed in mid-reply.
    """
    request = LlmRequest(grant.agent.instructions, messages, tools_for(grant.agent), grant.call.call_id)
    used = {c.id for m in messages if isinstance(m, AgentMessage) for c in m.tool_calls}
    for provider, ref in zip(providers, grant.agent.llm, strict=True):
        begun = False
        try:
            async for event in _timed(provider.stream(request)):
                match event:
                    case TextDelta(text):
                        begun = True
                        yield ev.ReplyText(reply, text)
                    case ToolCallDelta(call, malformed):
                        begun = True
                        if call.id in used:  # some servers number their calls anew in every reply
                            call = call.model_copy(update={"id": f"{call.id}-{grant.session}-{reply}"})
                        used.add(call.id)
                        yield ev.ReplyTool(reply, call, malformed is not None)
                    case LlmUsage() if event.input_tokens or event.output_tokens:
                        name, _, model = ref.partition("/")
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
            failed("llm", understood(ref, error))
        if begun:
            break
    raise ReplyFailure("No language model gave a whole reply.", retryable=True)


async def _timed(stream: AsyncIterator[LlmEvent]) -> AsyncIterator[LlmEvent]:
    async with contextlib.aclosing(cast(AsyncGenerator[LlmEvent, None], stream)):
        while True:
            try:
                async with asyncio.timeout(TOKEN_TIMEOUT):
                    event = await anext(stream)
            except StopAsyncIteration:
                return
            yield event

"""What the tests of language-model adapters share."""

from __future__ import annotations

from media_bridge.providers.base import LlmProvider, LlmRequest, LlmUsage, TextDelta, ToolCallDelta
from stayline.models import AgentMessage, Message, NoteMessage, ToolCall, ToolMessage, ToolSpec, UserMessage

WEATHER = ToolSpec(
    name="get_weather",
    description="Get current weather for a location.",
    parameters={"type": "object", "properties": {"location": {"type": "string"}}, "required": ["location"]},
)
END_CALL = ToolSpec(name="end_call", description="End the call.", parameters={})

CONVERSATION: tuple[Message, ...] = (
    AgentMessage(text="Hello! How can I help you?"),
    UserMessage(text="What is the weather in Rome, and in Oslo?"),
    AgentMessage(
        text="Let me check.",
        tool_calls=(
            ToolCall(id="call_a", name="get_weather", arguments={"location": "Rome"}),
            ToolCall(id="call_b", name="get_weather", arguments={"location": "Oslo"}),
        ),
    ),
    ToolMessage(tool_call_id="call_a", name="get_weather", content='"sunny"'),
    ToolMessage(tool_call_id="call_b", name="get_weather", content="no such place", is_error=True),
    AgentMessage(text="In Rome it is", interrupted=True),
    UserMessage(text="Only Oslo please."),
    NoteMessage(text="The caller pressed 1."),
)
"""Everything that a history can hold, in one."""


def request(
    *messages: Message, tools: tuple[ToolSpec, ...] = (WEATHER, END_CALL), instructions: str = "Be brief."
) -> LlmRequest:
    return LlmRequest(instructions, messages or (UserMessage(text="Hi"),), tools, call_id="CA123")


class Heard:
    """A reply, sorted."""

    def __init__(self) -> None:
        self.text = ""
        self.calls: list[ToolCall] = []
        self.malformed: list[str | None] = []
        self.usage: list[LlmUsage] = []


async def hear(llm: LlmProvider, asked: LlmRequest) -> Heard:
    heard = Heard()
    async for event in llm.stream(asked):
        match event:
            case TextDelta(text):
                assert text
                heard.text += text
            case ToolCallDelta(call, malformed):
                heard.calls.append(call)
                heard.malformed.append(malformed)
            case LlmUsage():
                heard.usage.append(event)
    return heard

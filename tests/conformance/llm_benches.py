"""The language models, each before its fake."""

from __future__ import annotations

import dataclasses
from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

from media_bridge.providers.anthropic_llm import AnthropicLlm
from media_bridge.providers.base import LlmProvider, ProviderConfig
from media_bridge.providers.offline.scripted import ScriptedLlm
from media_bridge.providers.openai_llm import OpenAILlm
from tests.conformance.suite import Subject
from tests.fakes.anthropic import FakeAnthropic
from tests.fakes.llm import FakeLlm, Part
from tests.fakes.openai import FakeOpenAI


@dataclasses.dataclass(slots=True)
class LlmBench:
    """An adapter and its vendor.

    Attributes:
        make: the adapter, with these options and perhaps another key.
        fake: None: there is no vendor, it runs here.
        seen: the texts of a request as the vendor got it, one string.
    """

    make: Callable[..., LlmProvider]
    fake: FakeLlm | None
    reference: Callable[[dict[str, Any]], Any]  #: where a request names the call

    def answers(self, *parts: Part) -> None:
        assert self.fake is not None
        self.fake.reply = lambda body: parts

    def answers_by(self, reply: Callable[[dict[str, Any]], Sequence[Part]]) -> None:
        assert self.fake is not None
        self.fake.reply = reply


@asynccontextmanager
async def openai(model: str = "gpt-6-luna", **more: Any) -> AsyncIterator[LlmBench]:
    async with FakeOpenAI() as fake:

        def make(key: str = fake.key, **options: Any) -> LlmProvider:
            return OpenAILlm(
                ProviderConfig("openai", model, api_key=key, base_url=fake.url, options={**more, **options})
            )

        yield LlmBench(make, fake, lambda body: body.get("metadata", {}).get("call_id"))


@asynccontextmanager
async def anthropic() -> AsyncIterator[LlmBench]:
    async with FakeAnthropic() as fake:

        def make(key: str = fake.key, **options: Any) -> LlmProvider:
            return AnthropicLlm(
                ProviderConfig("anthropic", "claude-haiku-5-5", api_key=key, base_url=fake.url, options=options)
            )

        yield LlmBench(make, fake, lambda body: body.get("metadata", {}).get("user_id"))


SCENARIO = Path(__file__).resolve().parents[2] / "examples/demo/scenario.yaml"


@asynccontextmanager
async def scripted() -> AsyncIterator[LlmBench]:
    def make(**options: Any) -> LlmProvider:
        return ScriptedLlm(ProviderConfig("offline", "scripted", options={"scenario": str(SCENARIO), **options}))

    yield LlmBench(make, None, lambda body: None)


_HERE = "It runs here: there is no vendor, key or connection."
_WRITTEN = "It says and asks for what its scenario file holds; `test_scripted` puts it to its own suite."
SUBJECTS: Sequence[Subject[LlmBench]] = (
    Subject("openai/gpt-6-luna", openai),
    Subject(
        "openai (api=chat)",
        lambda: openai("llama", api="chat", effort="none"),
        {
            "the_call_can_be_found": "A server of one's own may refuse fields that it does not know.",
        },
    ),
    Subject("anthropic/claude-haiku-5-5", anthropic),
    Subject(
        "offline/scripted",
        scripted,
        {
            **dict.fromkeys(
                (
                    "a_wrong_key",
                    "too_many_requests",
                    "nobody_listens",
                    "a_reply_that_breaks_off",
                    "an_unknown_message",
                    "an_error_in_the_stream",
                    "leaving_closes_the_connection",
                    "a_cancelled_request",
                    "the_call_can_be_found",
                    "usage_is_told",
                ),
                _HERE,
            ),
            **dict.fromkeys(
                (
                    "text_comes_in_pieces",
                    "a_tool_round_trip",
                    "parallel_calls",
                    "malformed_arguments",
                    "tools_are_offered",
                    "everything_a_history_can_hold",
                    "a_reply_of_nothing",
                ),
                _WRITTEN,
            ),
        },
    ),
)

"""`offline/scripted`: a language model that follows a scenario file, for lines whose calls are known.

It answers only what its scenario covers, and always the same: replies are a pure function of scenario and
conversation (see `dialog.decide`). It uses no tokens and takes about a millisecond.
"""

from __future__ import annotations

import re
from collections.abc import AsyncIterator
from pathlib import Path

from media_bridge.providers.base import (
    LlmEvent,
    LlmProfile,
    LlmRequest,
    LlmUsage,
    ProviderConfig,
    TextDelta,
    ToolCallDelta,
)
from media_bridge.providers.offline.dialog import decide
from media_bridge.providers.offline.engine import check_engine
from media_bridge.providers.offline.scenario_file import load_scenario
from media_bridge.providers.options import Options, read_options
from stayline.errors import ConfigError, ProviderError

_WORD = re.compile(r"\S+\s*")


class ScriptedOptions(Options):
    scenario: Path | None = None  #: the scenario file; absolute, or relative to the working directory


class ScriptedLlm:
    """The provider. Holds its scenario and nothing else.

    Raises:
        ConfigError: no scenario was given, or something in it is wrong.
    """

    profile = LlmProfile(parallel_tools=False)

    def __init__(self, config: ProviderConfig) -> None:
        check_engine(config, "scripted")
        path = read_options(ScriptedOptions, config, "llm").scenario
        if path is None:
            raise ConfigError(
                f"{config.provider}/{config.model} has no scenario to follow.",
                fix='Give its file: options={"llm": {"scenario": str(Path(__file__).with_name("scenario.yaml"))}}.',
            )
        self.scenario = load_scenario(path)

    async def warm(self) -> None:
        """Nothing to load: the scenario was read at construction."""

    async def stream(self, request: LlmRequest) -> AsyncIterator[LlmEvent]:
        """The reply that is due, word by word, then the tool it needs.

        Raises:
            ProviderError: the scenario calls a tool that the agent does not have.
        """
        decision = decide(self.scenario, request.messages)
        for call in decision.tool_calls:
            if call.name not in {tool.name for tool in request.tools}:
                raise ProviderError(
                    "offline",
                    f"state {decision.state!r} of the scenario calls {call.name!r}, which the agent does not have",
                    retryable=False,
                    fix="Give the agent that tool (transfers=... for transfer_call), or change the scenario.",
                )
        for word in _WORD.findall(decision.text):
            yield TextDelta(word)
        for call in decision.tool_calls:
            yield ToolCallDelta(call)
        yield LlmUsage()

    async def aclose(self) -> None:
        """Nothing to close."""

"""Agent: what a user writes. Configuration only; everything is checked here or at start, never on a live call."""

from __future__ import annotations

import importlib
import importlib.util
import inspect
import sys
from collections.abc import Mapping, Sequence
from datetime import timedelta
from pathlib import Path
from typing import Any, Literal

from pydantic import ValidationError

from stayline import registry
from stayline.catalog import Role
from stayline.errors import ConfigError, RejectCall
from stayline.models import AgentSpec, CallInfo, InterruptionMode, Mode, TurnTaking
from stayline.suggest import closest
from stayline.tool_definition import ToolDefinition, ToolHandler, bind_tools
from stayline.tools import Policy, Tool

Provider = str | object
"""Who serves a role: "provider/model", or an implementation of one's own (see `stayline.providers`)."""
ProviderRef = Provider | Sequence[Provider]


class Agent:
    """An agent that answers calls.

    Args:
        instructions: the system prompt.
        greeting: said first; empty: the agent waits for the caller.
        mode: `text` (STT, LLM, TTS) or `realtime` (one voice-to-voice model).
        stt, llm, tts: "provider/model", or an object or class of one's own that implements the role (see
            `stayline.providers`), or a list of these in order of preference. For mode `text`.
        realtime: the same, for mode `realtime`.
        voice: the voice id of the TTS (or realtime) provider.
        tools: functions decorated with `stayline.tool`, and `ToolDefinition`s.
        tool_handlers: by name, what carries out the `ToolDefinition`s.
        interruption: `immediate`, `after_sentence` or `disabled`; or give `turn_taking` for every detail.
        transfers: names that the model may transfer to, e.g. {"support": "+15551234567"}.
        options: options per role, e.g. {"stt": {"keyterm": ["Stayline"]}}; an unknown one is an error.
        numbers: the called numbers that this agent answers; empty: all that no other agent claims.
        name: default: the variable it is bound to, as given on the command line.
        max_duration, silence_timeout, ...: see `stayline.models.AgentSpec`; timedelta or seconds.
    Raises:
        ConfigError: anything that would fail on a call, with what to do about it.
    """

    def __init__(
        self,
        *,
        instructions: str = "",
        greeting: str = "",
        mode: Mode = "text",
        stt: ProviderRef = (),
        llm: ProviderRef = (),
        tts: ProviderRef = (),
        realtime: ProviderRef = (),
        voice: str = "",
        tools: Sequence[Tool | ToolDefinition] = (),
        tool_handlers: Mapping[str, ToolHandler] | None = None,
        interruption: InterruptionMode = "immediate",
        turn_taking: TurnTaking | None = None,
        max_duration: timedelta | float = timedelta(minutes=30),
        transfers: dict[str, str] | None = None,
        options: dict[str, dict[str, Any]] | None = None,
        numbers: Sequence[str] = (),
        name: str = "",
        **details: Any,
    ) -> None:
        unknown = set(details) - set(AgentSpec.model_fields)
        if unknown:
            wrong = sorted(unknown)[0]
            raise ConfigError(f"Agent has no setting {wrong!r}.", fix=closest(wrong, list(AgentSpec.model_fields)))
        if mode not in ("text", "realtime"):
            raise ConfigError(f"mode={mode!r} is not a pipeline.", fix='Use mode="text" or mode="realtime".')
        refs = _pipeline(mode, {"stt": stt, "llm": llm, "tts": tts, "realtime": realtime})
        self.tools: dict[str, Tool] = {item.spec.name: item for item in bind_tools(tools, tool_handlers)}
        self.numbers = tuple(numbers)
        self.policy: Policy | None = None
        if turn_taking is None:
            turn_taking = TurnTaking(interruption=_interruption(interruption))
        try:
            self._spec = AgentSpec(
                name=name,
                instructions=instructions,
                greeting=greeting,
                mode=mode,
                stt=refs["stt"],
                llm=refs["llm"],
                tts=refs["tts"],
                realtime=refs["realtime"],
                voice=voice,
                tools=tuple(t.spec for t in self.tools.values()),
                turn_taking=turn_taking,
                max_duration=_seconds(max_duration),
                transfers=transfers or {},
                options=options or {},
                **{key: _seconds(value) for key, value in details.items()},
            )
        except ValidationError as error:
            first = error.errors()[0]
            raise ConfigError(f"Agent setting {'.'.join(map(str, first['loc']))!r}: {first['msg']}.") from error
        if self._spec.max_duration <= 0:
            raise ConfigError("max_duration must be positive.", fix="Give a timedelta or seconds above 0.")

    def on_call(self, policy: Policy) -> Policy:
        """Decorator: the policy that accepts (returns) or rejects (raises `RejectCall`) each incoming call."""
        if len(inspect.signature(policy).parameters) != 1:
            raise ConfigError("An on_call policy takes one argument, the CallInfo.")
        self.policy = policy
        return policy

    async def screen(self, call: CallInfo) -> RejectCall | None:
        """Run the policy. Returns the rejection, or None when the call is accepted."""
        if self.policy is None:
            return None
        try:
            answer = self.policy(call)
            if inspect.isawaitable(answer):
                await answer
        except RejectCall as rejection:
            return rejection
        return None

    @property
    def name(self) -> str:
        return self._spec.name

    def named(self, name: str) -> Agent:
        """Give the agent a name if it has none yet."""
        if not self._spec.name:
            self._spec = self._spec.model_copy(update={"name": name})
        return self

    def spec(self) -> AgentSpec:
        """The agent as data."""
        return self._spec


def _interruption(mode: str) -> InterruptionMode:
    modes: tuple[InterruptionMode, ...] = ("immediate", "after_sentence", "disabled")
    for known in modes:
        if mode == known:
            return known
    raise ConfigError(f"interruption={mode!r} is not a mode.", fix=closest(mode, list(modes)))


def _seconds(value: Any) -> Any:
    """A timedelta in seconds; whatever else it is, the spec's own type judges."""
    return value.total_seconds() if isinstance(value, timedelta) else value


def _pipeline(mode: Mode, given: dict[Role, ProviderRef]) -> dict[Role, tuple[str, ...]]:
    """The providers of each role that the mode has."""
    foreign: tuple[Role, ...] = ("realtime",) if mode == "text" else ("stt", "llm", "tts")
    for role in foreign:
        if given[role]:
            other = "realtime" if mode == "text" else "text"
            raise ConfigError(f"mode={mode!r} has no {role}.", fix=f'Leave it out, or use mode="{other}".')
    return {role: () if role in foreign else _refs(role, value) for role, value in given.items()}


def _refs(role: Role, value: ProviderRef) -> tuple[str, ...]:
    given: Sequence[Provider] = value if isinstance(value, list | tuple) else (value,)
    if not given:
        raise ConfigError(f"The agent has no {role}.", fix=f'Give one, e.g. {role}="{_example(role)}".')
    refs = tuple(item if isinstance(item, str) else registry.inject(role, item) for item in given)
    for ref in refs:
        split_ref(role, ref)
    return refs


def _example(role: Role) -> str:
    return {
        "stt": "deepgram/nova-3",
        "llm": "anthropic/claude-haiku-5-5",
        "tts": "elevenlabs/eleven_flash_v2_5",
        "realtime": "openai/gpt-realtime-2.1",
    }[role]


def split_ref(role: Role, ref: str) -> tuple[str, str]:
    """Split "provider/model" and check that the provider exists and can do the role.

    Raises:
        ConfigError: with the nearest name that exists.
    """
    provider, slash, model = ref.partition("/")
    if provider == registry.INJECTED:
        registry.injected(role, model)
        return provider, model
    if registry.find_provider(role, provider) is None:
        raise registry.unknown_provider(role, ref, provider)
    if not slash or not model:
        raise ConfigError(
            f"{role}={ref!r} names no model.", fix=f'Write "provider/model", e.g. "{_example(role)}".'
        )
    return provider, model


def load_agents(references: Sequence[str]) -> dict[str, Agent]:
    """Import agents given as `module:variable` or `path/to/file.py:variable`.

    Raises:
        ConfigError: the module or variable does not exist, is no Agent, or two agents collide.
    """
    agents: dict[str, Agent] = {}
    claimed: dict[str, str] = {}
    for reference in references:
        module_name, colon, variable = reference.partition(":")
        if not colon or not module_name or not variable:
            raise ConfigError(f"--agent {reference!r} is not module:variable.", fix="e.g. my_agent:agent.")
        agent = getattr(_import(module_name, reference), variable, None)
        if not isinstance(agent, Agent):
            raise ConfigError(f"--agent {reference!r}: {variable!r} is not an Agent there.")
        agent.named(variable)
        if agent.name in agents:
            raise ConfigError(f"Two agents are called {agent.name!r}.", fix="Give one a name=.")
        for number in agent.numbers or ("*",):
            if number in claimed:
                wanted = "calls to any number" if number == "*" else number
                raise ConfigError(
                    f"Agents {claimed[number]!r} and {agent.name!r} both answer {wanted}.",
                    fix="Give each its own numbers=[...].",
                )
            claimed[number] = agent.name
        agents[agent.name] = agent
    if not agents:
        raise ConfigError("No agent was given.", fix="Add --agent my_agent:agent.")
    return agents


def _import(module_name: str, reference: str) -> Any:
    if module_name.endswith(".py"):
        path = Path(module_name).resolve()
        if not path.is_file():
            raise ConfigError(f"--agent {reference!r}: there is no file {module_name}.")
        spec = importlib.util.spec_from_file_location(path.stem, path)
        assert spec is not None
        assert spec.loader is not None
        module = importlib.util.module_from_spec(spec)
        sys.modules[path.stem] = module
        spec.loader.exec_module(module)
        return module
    if "" not in sys.path and str(Path.cwd()) not in sys.path:
        sys.path.insert(0, str(Path.cwd()))
    try:
        return importlib.import_module(module_name)
    except ModuleNotFoundError as error:
        if error.name and f"{module_name}.".startswith(f"{error.name}."):
            raise ConfigError(
                f"--agent {reference!r}: there is no module {module_name!r}.",
                fix="Run it from the folder that holds the module, or give a path to the file.",
            ) from error
        raise
    except TypeError as error:
        if not module_name.startswith("."):
            raise
        raise ConfigError(
            f"--agent {reference!r}: a relative module is relative to nothing here.",
            fix="Write its whole name, or give a path to the file.",
        ) from error


def agent_for(agents: dict[str, Agent], number: str) -> Agent | None:
    """The agent that answers calls to this number: one that claims it, else the one that claims none."""
    exact = next((a for a in agents.values() if number in a.numbers), None)
    return exact or next((a for a in agents.values() if not a.numbers), None)


Severity = Literal["error", "warning"]

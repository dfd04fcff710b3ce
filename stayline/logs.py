"""Logs: structured, with call id and session, for a terminal or as JSON lines, always on stderr.

    log = structlog.get_logger(__name__)
    bind_call(call_id, session)
    log.info("stream opened", codec="mulaw")

Log what happened and codes, never what was said. As guards: values under keys with a `pii` segment are dropped
unless `telemetry_pii` is on, phone numbers are masked in every line including the tracebacks of other people's
libraries, and credentials never appear, whatever the settings.
"""

from __future__ import annotations

import logging
import os
import re
import sys
from collections import OrderedDict
from collections.abc import Iterable, Mapping
from typing import Any

import structlog
from structlog.typing import EventDict, Processor, WrappedLogger
from temporalio import activity, workflow

from stayline.settings import Settings
from stayline.telemetry.attributes import is_pii
from stayline.telemetry.privacy import MASK, mask

# Loggers that write bodies, frames, SQL parameters or phone numbers at these levels, or a line per request.
_CAPPED = {
    "aiohttp.access": logging.WARNING,
    "aiosqlite": logging.INFO,
    "anthropic": logging.WARNING,
    "asyncio": logging.INFO,
    "httpcore": logging.WARNING,
    "httpx": logging.WARNING,
    "openai": logging.WARNING,
    "sqlalchemy.engine": logging.WARNING,
    "twilio": logging.WARNING,
    "urllib3": logging.INFO,
    "websockets": logging.INFO,
}
_CREDENTIAL_KEY = re.compile(r"(^|_|\.|-)(token|secret|password|api_?key|authorization|signature)$", re.IGNORECASE)
_CREDENTIAL_VARIABLE = re.compile(r"(TOKEN|SECRET|PASSWORD|KEY)$")
_BEARER = re.compile(r"\b(bearer|basic)\s+[\w.~+/=\-]{8,}|\bsk-[\w\-]{8,}", re.IGNORECASE)
_URL_PASSWORD = re.compile(r"://[^:/@]*:([^/]+)@")
_SHORTEST_CREDENTIAL = 8  # characters; shorter values would blank out ordinary words
_REMEMBERED = 4096
_FIRST = ("timestamp", "level", "event")  # what a reader of JSON lines looks for
_HANDLER_NAME = "stayline"

_seen: OrderedDict[str, None] = OrderedDict()


def configure_logging(settings: Settings, process: str = "") -> None:
    """Send structlog's and the standard library's records the same way. Replaces an earlier configuration.

    Args:
        process: "bridge", "worker", …; put on every line.
    """
    as_json = settings.log_format == "json" or (settings.log_format == "auto" and not sys.stderr.isatty())
    guard = _Guard(settings, os.environ)
    shared: list[Processor] = [
        structlog.contextvars.merge_contextvars,
        structlog.stdlib.add_logger_name,
        structlog.stdlib.add_log_level,
        structlog.processors.TimeStamper(fmt="iso", utc=True),
        _of_process(process),
        _of_temporal,
        structlog.processors.StackInfoRenderer(),
    ]
    ending: list[Processor] = [
        structlog.stdlib.ProcessorFormatter.remove_processors_meta,
        structlog.processors.format_exc_info,
        guard,
        structlog.processors.JSONRenderer(default=str)
        if as_json
        else structlog.dev.ConsoleRenderer(colors=sys.stderr.isatty(), pad_event_to=0),
    ]
    structlog.configure(
        processors=[
            structlog.stdlib.filter_by_level,
            structlog.stdlib.PositionalArgumentsFormatter(),
            *shared,
            structlog.stdlib.ProcessorFormatter.wrap_for_formatter,
        ],
        logger_factory=structlog.stdlib.LoggerFactory(),
        wrapper_class=structlog.stdlib.BoundLogger,
        cache_logger_on_first_use=False,
    )
    handler = logging.StreamHandler(sys.stderr)
    handler.set_name(_HANDLER_NAME)
    handler.setFormatter(structlog.stdlib.ProcessorFormatter(foreign_pre_chain=shared, processors=ending))
    root = logging.getLogger()
    for former in [present for present in root.handlers if present.get_name() == _HANDLER_NAME]:
        root.removeHandler(former)
    root.addHandler(handler)
    level = logging.getLevelNamesMapping()[settings.log_level.upper()]
    root.setLevel(level)
    for name, cap in _CAPPED.items():
        logging.getLogger(name).setLevel(max(cap, level))
    _quieten_temporal()


def bind_call(call_id: str, session: int | None = None) -> None:
    """Put call id and session on every line that this task, and the tasks it starts from now on, will log."""
    structlog.contextvars.bind_contextvars(call_id=call_id)
    if session is not None:
        structlog.contextvars.bind_contextvars(session=session)


def once(key: str) -> bool:
    """Whether this is the first time: `if once(f"{stream_id}:bad-json"): log.warning(…)`.

    For what a noisy peer can cause a thousand times. Forgets the oldest of some thousand keys.
    """
    if key in _seen:
        _seen.move_to_end(key)
        return False
    _seen[key] = None
    if len(_seen) > _REMEMBERED:
        _seen.popitem(last=False)
    return True


def guard(settings: Settings, environment: Mapping[str, str]) -> Processor:
    """The step that keeps a line clean: nothing personal, none of the environment's credentials."""
    return _Guard(settings, environment)


class _Guard:
    """The last step before a line is written: nothing personal, no credentials."""

    def __init__(self, settings: Settings, environment: Mapping[str, str]) -> None:
        self._pii = settings.telemetry_pii
        keys = (settings.hash_key, settings.live_key, settings.codec_token)
        known = {*_credentials(environment), *(key.get_secret_value() for key in keys)}
        if settings.encryption_keys is not None:  # name:key,name:key
            known |= set(re.findall(r":\s*([^\s,]+)", settings.encryption_keys.get_secret_value()))
        known |= set(_URL_PASSWORD.findall(settings.database_url))
        values = sorted((value for value in known if len(value) >= _SHORTEST_CREDENTIAL), key=len, reverse=True)
        self._credentials = re.compile("|".join(map(re.escape, values))) if values else None

    def __call__(self, logger: WrappedLogger, method: str, event: EventDict) -> EventDict:
        clean: dict[str, Any] = self._clean(event)
        return {key: clean.pop(key) for key in _FIRST if key in clean} | clean

    def _clean(self, value: Any) -> Any:
        if isinstance(value, Mapping):
            return {
                str(key): MASK if _CREDENTIAL_KEY.search(str(key)) else self._clean(held)
                for key, held in value.items()
                if self._pii or not is_pii(str(key))
            }
        if isinstance(value, (list, tuple, set, frozenset)):
            return [self._clean(item) for item in value]
        if value is None or isinstance(value, (bool, int, float)):
            return value
        return self._text(str(value))

    def _text(self, text: str) -> str:
        if self._credentials is not None:
            text = self._credentials.sub(MASK, text)
        text = _BEARER.sub(MASK, text)
        return text if self._pii else mask(text)


def _credentials(environment: Mapping[str, str]) -> Iterable[str]:
    """Values of variables such as TWILIO_AUTH_TOKEN and OPENAI_API_KEY."""
    return (value for name, value in environment.items() if _CREDENTIAL_VARIABLE.search(name))


def _of_process(process: str) -> Processor:
    def add(logger: WrappedLogger, method: str, event: EventDict) -> EventDict:
        if process:
            event.setdefault("process", process)
        return event

    return add


def _of_temporal(logger: WrappedLogger, method: str, event: EventDict) -> EventDict:
    """Records of Temporal's workflow and activity loggers bring what they are about as an `extra`."""
    record = event.get("_record")
    details = getattr(record, "temporal_activity", None) or getattr(record, "temporal_workflow", None)
    if isinstance(details, Mapping):
        workflow_id = str(details.get("workflow_id", ""))
        if workflow_id.startswith("call-"):
            event.setdefault("call_id", workflow_id.removeprefix("call-"))
        elif workflow_id:
            event.setdefault("workflow_id", workflow_id)
        for key in ("activity_type", "attempt", "update_name"):
            if key in details:
                event.setdefault(key, details[key])
    return event


def _quieten_temporal() -> None:
    """Let the SDK's loggers say what happened without repeating as text what `_of_temporal` puts in fields."""
    activity.logger.activity_info_on_message = False
    workflow.logger.workflow_info_on_message = False

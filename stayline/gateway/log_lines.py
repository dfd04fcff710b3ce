"""Stayline's log lines inside another application: through the standard library, which decides where they go."""

from __future__ import annotations

import logging
from collections.abc import Mapping
from typing import Any

import structlog
from structlog.typing import EventDict, WrappedLogger

from stayline.logs import guard
from stayline.settings import Settings


def embed(settings: Settings, environment: Mapping[str, str], logger: logging.Logger | None) -> None:
    """Send log lines to the application's loggers as `event key=value …`, clean of numbers and credentials.

    A process whose structlog is configured already keeps it, unless it gives a `logger`.

    Args:
        logger: its children take the lines; None: the loggers `stayline` and `media_bridge`.
    """
    if logger is None and structlog.is_configured():
        return

    def made(*names: Any) -> logging.Logger:
        name = str(names[0]) if names else "stayline"
        return logger.getChild(name) if logger is not None else logging.getLogger(name)

    structlog.configure(
        processors=[
            structlog.stdlib.filter_by_level,
            structlog.contextvars.merge_contextvars,
            structlog.processors.format_exc_info,
            guard(settings, environment),
            _as_text,
        ],
        logger_factory=made,
        wrapper_class=structlog.stdlib.BoundLogger,
        cache_logger_on_first_use=False,
    )


def _as_text(logger: WrappedLogger, method: str, event: EventDict) -> str:
    exception = event.pop("exception", "")
    words = [
        str(event.pop("event", "")),
        *(f"{key}={value!r}" for key, value in event.items() if value is not None),
    ]
    return "\n".join(filter(None, [" ".join(words), exception]))

"""What may leave the process. Applied to every span on export and to every log line.

With `telemetry_pii` off (the default):
- keys with a `pii` segment and the text of exceptions are dropped; an exception keeps its type,
- spans of Stayline and of Temporal carry only the keys in `attributes`; others are dropped and named once,
- phone numbers and the user part of SIP addresses are masked in every string that is left, as a last guard.
"""

from __future__ import annotations

import logging
import re
from collections.abc import Mapping

from opentelemetry.sdk.resources import Resource
from opentelemetry.sdk.trace import Event, ReadableSpan
from opentelemetry.trace import Link, Status, StatusCode
from opentelemetry.util.types import Attributes, AttributeValue

from stayline.telemetry import attributes

MASK = "***"

# E.164 is + and up to 15 digits (ITU-T E.164, 6.1); people and URLs write it with separators or as %2B.
# Digits without a plus count from 10 on when they stand alone; ids of calls and runs are hexadecimal words.
_NUMBER = re.compile(r"(?:\+|%2B)[1-9](?:[ .()\-]{0,2}\d){6,14}|(?<![\w.\-:/])\d{10,15}(?![\w.\-:])", re.IGNORECASE)
_SIP_USER = re.compile(r"(sips?:)[^@\s]+(?=@)", re.IGNORECASE)

_OUR_SCOPES = ("stayline", "temporalio")
_log = logging.getLogger(__name__)
_named: set[str] = set()


def mask(text: str) -> str:
    """Replace what looks like a phone number, and who is called at a SIP address."""
    return _SIP_USER.sub(rf"\1{MASK}", _NUMBER.sub(MASK, text))


def clean_attributes(values: Attributes, *, ours: bool) -> dict[str, AttributeValue]:
    """The attributes that may leave. `ours`: they come from Stayline or Temporal, so only known keys pass."""
    clean: dict[str, AttributeValue] = {}
    for key, value in (values or {}).items():
        if attributes.is_pii(key):
            continue
        if ours and key not in attributes.SPAN_KEYS:
            if key not in _named:
                _named.add(key)
                _log.warning("span attribute %s is not in stayline.telemetry.attributes; dropped", key)
            continue
        clean[key] = _mask_value(value)
    return clean


def leaving(span: ReadableSpan, resource: Resource, *, pii: bool) -> ReadableSpan:
    """An ended span as it may leave this process, which `resource` describes."""
    if not pii:
        span = _clean_span(span)
    span._resource = resource  # the provider's is fixed before the process is configured
    return span


def _clean_span(span: ReadableSpan) -> ReadableSpan:
    scope = span.instrumentation_scope
    ours = scope is not None and scope.name.partition(".")[0] in _OUR_SCOPES
    return ReadableSpan(
        name=mask(span.name),
        context=span.context,
        parent=span.parent,
        resource=span.resource,
        attributes=clean_attributes(span.attributes, ours=ours),
        events=[
            Event(mask(e.name), clean_attributes(e.attributes, ours=ours), timestamp=e.timestamp)
            for e in span.events
        ],
        links=[Link(link.context, clean_attributes(link.attributes, ours=ours)) for link in span.links],
        kind=span.kind,
        status=_clean_status(span),
        start_time=span.start_time,
        end_time=span.end_time,
        instrumentation_scope=scope,
    )


def _clean_status(span: ReadableSpan) -> Status:
    """A status' description is the exception's message: keep the exception's type instead."""
    if span.status.status_code is not StatusCode.ERROR:
        return Status(span.status.status_code)
    return Status(StatusCode.ERROR, _exception_type(span))


def _exception_type(span: ReadableSpan) -> str | None:
    for event in reversed(span.events):
        found: Mapping[str, AttributeValue] = event.attributes or {}
        if attributes.EXCEPTION_TYPE in found:
            return str(found[attributes.EXCEPTION_TYPE])
    return None


def _mask_value(value: AttributeValue) -> AttributeValue:
    if isinstance(value, str):
        return mask(value)
    if isinstance(value, (list, tuple)) and any(isinstance(item, str) for item in value):
        return [mask(item) for item in value if isinstance(item, str)]
    return value

"""What callers said or who they are leaves only under keys named pii, and only when asked for."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
from opentelemetry import trace
from opentelemetry.sdk.trace.export.in_memory_span_exporter import InMemorySpanExporter
from opentelemetry.trace import Link, Status, StatusCode

from stayline import telemetry
from stayline.settings import Settings
from stayline.telemetry import attributes
from stayline.telemetry.privacy import mask

NUMBER = "+14155550123"
SAID = "my card is the blue one, says Mephisto"
PERSONAL = {"text", "transcript", "caller", "phone", "arguments", "result", "message", "email", "address", "dtmf"}


def _constants() -> dict[str, str]:
    return {
        name: value
        for name, value in vars(attributes).items()
        if name.isupper() and isinstance(value, str) and not name.startswith(("_", "SPAN_"))
    }


def test_constants_that_hold_personal_things_say_so() -> None:
    for name, key in _constants().items():
        assert name.startswith("PII_") == ("pii" in key.split(".")), name
        words = set(key.lower().replace("_", ".").split("."))
        if words & PERSONAL or {"from", "number"} <= words or {"to", "number"} <= words:
            assert attributes.is_pii(key), f"{key} must have a pii segment"


def test_constants_are_distinct_and_all_of_them_are_known() -> None:
    keys = list(_constants().values())
    assert len(set(keys)) == len(keys)
    assert set(keys) == attributes.SPAN_KEYS | attributes.LABELS
    assert not any(attributes.is_pii(label) for label in attributes.LABELS)


@pytest.fixture(params=[False, True], ids=["default", "opted-in"])
def exported(request: pytest.FixtureRequest) -> Iterator[tuple[bool, InMemorySpanExporter]]:
    exporter = InMemorySpanExporter()
    telemetry.configure(Settings(telemetry_pii=request.param), "test", exporter=exporter)
    yield request.param, exporter
    telemetry.shutdown()


def _converse() -> None:
    """A conversation whose author put personal things wherever a span has room for them."""
    with telemetry.span(attributes.SPAN_CALL, attributes={attributes.CALL_ID: "CA1"}) as call:
        for key in attributes.SPAN_KEYS:
            if attributes.is_pii(key):
                call.set_attribute(key, f"{SAID} {NUMBER}")
        call.set_attribute(attributes.REASON, f"dialled {NUMBER}")
        call.set_attribute("note", SAID)
        call.set_attribute("stayline.words", [SAID, SAID])
        call.add_event("heard", {"text": SAID, attributes.PII_USER_TEXT: SAID, attributes.TURN: 1})
    try:
        with telemetry.span(f"tool {NUMBER}"):
            raise LookupError(f"nobody at {NUMBER} said {SAID}")
    except LookupError:
        pass
    span = telemetry.tracer().start_span("llm", links=[Link(call.get_span_context(), {"said": SAID})])
    span.set_status(Status(StatusCode.ERROR, SAID))
    span.end()


def test_nothing_personal_leaves_unless_opted_in(exported: tuple[bool, InMemorySpanExporter]) -> None:
    opted_in, exporter = exported
    _converse()
    spans = exporter.get_finished_spans()
    everything = "".join(span.to_json() for span in spans)
    assert (SAID in everything) == opted_in
    assert (NUMBER in everything) == opted_in
    assert len(spans) == 3
    call, tool, _ = spans
    assert call.attributes is not None
    assert call.attributes[attributes.CALL_ID] == "CA1"
    assert (call.events[0].attributes or {})[attributes.TURN] == 1
    assert tool.status.status_code is StatusCode.ERROR
    assert (tool.events[0].attributes or {})[attributes.EXCEPTION_TYPE] == "LookupError"
    if not opted_in:
        assert tool.status.description == "LookupError"


def test_spans_of_a_users_own_code_keep_their_keys(exported: tuple[bool, InMemorySpanExporter]) -> None:
    """Only the pii rule and the masks hold for tools that trace their own work under their own names."""
    opted_in, exporter = exported
    with trace.get_tracer("my_clinic").start_as_current_span("book") as span:
        span.set_attribute("clinic.room", "12")
        span.set_attribute("clinic.pii.patient", SAID)
    (book,) = exporter.get_finished_spans()
    assert book.attributes is not None
    assert book.attributes["clinic.room"] == "12"
    assert ("clinic.pii.patient" in book.attributes) == opted_in


@pytest.mark.parametrize(
    ("text", "masked"),
    [
        ("call +14155550123 now", "call *** now"),
        ("+1 (415) 555-0123", "***"),
        ("+44 20 7946 0958.", "***."),
        ("To=%2B14155550123&x=1", "To=***&x=1"),
        ("customer 4155550123 unknown", "customer *** unknown"),
        ("sip:bob.smith@example.org", "sip:***@example.org"),
        ("sips:+14155550123@example.org", "sips:***@example.org"),
    ],
)
def test_numbers_are_masked(text: str, masked: str) -> None:
    assert mask(text) == masked


@pytest.mark.parametrize(
    "text",
    [
        "call-CA0123456789012345678901234567890f",
        "2026-11-22T18:02:02.838246Z",
        "took 1234.5678 ms, +3 dB, +100 records",
        "127.0.0.1:18233",
        "run 0192f0c1-7a2b-7c3d-8e4f-112233445566",
        "port 7233, 1 + 1",
    ],
)
def test_ids_times_and_counts_are_not_numbers_of_people(text: str) -> None:
    assert mask(text) == text

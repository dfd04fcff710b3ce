"""How a call reads: the page of `calls show`, its JSON, and single lines of the story."""

from __future__ import annotations

import io
import json
from datetime import UTC, datetime, timedelta

import pytest
from rich.console import Console

from stayline.commands.calls_find import FoundCall
from stayline.commands.calls_listed import Filters, ListedCall, moment, read_filters
from stayline.commands.calls_print import print_list, short_ids
from stayline.commands.calls_steer import transfer_target
from stayline.commands.calls_temporal import PendingTool
from stayline.commands.show import print_call
from stayline.commands.story import LONGEST_VALUE, tell
from stayline.commands.terminal import UsageError, clean, duration, offset
from stayline.models import ToolAttempt, ToolCall, ToolRun
from stayline.timeline import AgentTurn, CallRecord, Interruption, ToolCalled, TurnLatency, UserTurn
from tests.sample_call import CALL_ID, RECORD, START, at, record


def page(shown: CallRecord, *, width: int = 80, **options: object) -> str:
    console = Console(file=io.StringIO(), width=width, highlight=False)
    values = {"source": "a test", "zone": UTC, **options}
    print_call(console, shown, **values)  # type: ignore[arg-type]
    assert isinstance(console.file, io.StringIO)
    return console.file.getvalue()


def line_with(text: str, wanted: str) -> int:
    """The number of the first line that holds `wanted`."""
    return next(number for number, line in enumerate(text.splitlines()) if wanted in line)


# --- the page --------------------------------------------------------------------------------------------


def test_the_header_says_who_when_which_agent_how_long_and_how_it_ended() -> None:
    head = page(RECORD).splitlines()[:3]
    assert head == [
        f"Call {CALL_ID}  ended: the caller hung up",
        "+351910000123 → +15550100200 · inbound over lab · agent reception (text)",
        "2026-11-22 09:41:07 UTC · 2 min 1 s",
    ]


def test_an_interrupted_turn_shows_what_was_heard_and_what_was_not() -> None:
    text = page(RECORD, width=140)
    assert (
        " 0:13.2 agent    It's clear and 17 degrees in Lisbon, so ✂ "
        "[not heard: you will not need an umbrella this afternoon.]"
    ) in text
    assert "interrupted · first sound after 655 ms: end of turn 310 + model 120 + voice 180 + rest 45" in text


def test_a_tool_shows_each_attempt_with_its_error_and_the_result() -> None:
    text = page(RECORD, width=140)
    settled = line_with(text, '✓ get_weather  3 attempts, 3.4 s → {"sky": "clear", "celsius": 17}')
    first, second = text.splitlines()[settled + 1 : settled + 3]
    assert "↻ attempt 1 failed after 0.2 s: ConnectionError: weather station offline" in first
    assert "↻ attempt 2 failed after 0.2 s: 503 from the weather service" in second
    assert 'tool     get_weather(location="Lisbon")' in text


def test_a_tool_that_timed_out_is_never_told_as_done() -> None:
    text = page(RECORD, width=140)
    assert "? schedule_appointment  1 attempt, 20 s effect unknown" in text
    assert "✓ schedule_appointment" not in text


@pytest.mark.parametrize(
    "told",
    [
        " 0:22.0 session  session 1 lost: its bridge died",
        " 0:25.3 session  session 2 on bridge c41d77e0: the call goes on",
        " 0:26.0 record   records 9 to 10 of session 1 had not arrived yet",
        " 0:55.0 person   mia@desk transfers the call to +15550100999",
        " 1:23.1 transfer +15550100999: nobody answered (25 s); the caller is back with the agent",
        " 1:36.8 person   mia@desk refuses tool call call_r1",
        " 1:57.0 limit    nobody has spoken: the caller is asked",
        " 0:18.2 error    llm anthropic: overloaded (529) (may pass)",
        " 2:01.5 call     ended: the caller hung up",
        "recording  recordings/CA5f0c-3.wav (session 3)",
        "turns          9 (caller 3, agent 6)  first sound     342 ms on average",
        "read from  a test",
    ],
)
def test_everything_that_happened_is_told(told: str) -> None:
    assert told in page(RECORD, width=140)


@pytest.mark.parametrize("width", [80, 60, 40])
def test_a_narrow_terminal_stays_readable(width: int) -> None:
    """No line is cut or too wide, and text stays in its column. Paths and links are left whole to be copied."""
    text = page(RECORD, width=width)
    assert max(map(len, text.split("\nrecording  ")[0].splitlines())) <= width
    story = text.split("\n\n")[1]
    assert "umbrella" in story
    for line in story.splitlines():
        if line.startswith(" " * 8):
            assert line.startswith(" " * 17)


def test_lines_of_the_story_have_no_trailing_blanks() -> None:
    story = page(RECORD).split("\n\n")[1]
    assert all(line == line.rstrip() for line in story.splitlines())


def test_a_live_call_shows_what_runs_and_what_waits() -> None:
    running = ToolRun(call=ToolCall(id="c1", name="slow_tool"), session=1, requested_at=at(1))
    waiting = running.model_copy(update={"call": ToolCall(id="c2", name="refund"), "waiting_approval": True})
    live = record(status="active", outcome=None, ended_at=None, seconds_left=61.0, tools=(running, waiting))
    failed = PendingTool(call_id="c1", name="slow_tool", failed=ToolAttempt(number=2, error="busy"))
    text = page(live, width=100, retried=[failed])
    assert "2 min 1 s so far, 1 min 1 s left" in text
    assert "    now tool     … slow_tool is running" in text
    assert "↻ attempt 2 failed: busy" in text
    assert "⏸ refund waits for approval" in text


def test_a_provisional_record_says_so() -> None:
    assert "not final: tools still ran" in page(record(final=False, status="wrapping_up"))


def test_temporals_link_is_one_line_however_narrow() -> None:
    url = "http://127.0.0.1:8233/namespaces/default/workflows/call-" + CALL_ID
    assert f"temporal   {url}" in page(RECORD, width=40, ui_url=url).splitlines()


def test_nothing_from_outside_can_drive_the_terminal() -> None:
    evil = "hi\x1b[2J\x1b]0;owned\x07\r\nthere \u202egnihtemos [bold]no markup[/bold]"
    call = ToolCall(id="x", name="tool\x1b[1m", arguments={"a\x1b": evil})
    timeline = tuple(
        entry.model_copy(update={"event": event})
        for entry, event in zip(
            RECORD.timeline,
            (
                UserTurn(at=at(0), text=evil),
                AgentTurn(at=at(1), text=evil, generated=evil, interrupted=True),
                ToolCalled(at=at(2), call=call),
            ),
            strict=False,
        )
    )
    text = page(CallRecord(snapshot=RECORD.snapshot, timeline=timeline), width=300)
    assert not any(c in text for c in "\x1b\x07\r\u202e")
    assert "[bold]no markup[/bold]" in text
    assert clean("family 👨\u200d👩\u200d👧, می\u200cخواهم") == "family 👨\u200d👩\u200d👧, می\u200cخواهم"


def test_a_huge_tool_argument_is_shortened() -> None:
    line = tell(ToolCalled(at=at(0), call=ToolCall(id="1", name="t", arguments={"x": "y" * 5000})))
    assert line is not None
    assert len(line.text.plain) < LONGEST_VALUE + 10


def test_a_false_interruption_is_told_and_a_true_one_shows_at_its_turn() -> None:
    assert tell(Interruption(at=at(0), mode="immediate")) is None
    told = tell(Interruption(at=at(0), mode="immediate", resumed=True))
    assert told is not None
    assert told.text.plain == "the caller made a noise; the agent went on"


def test_a_latency_without_its_sum_is_told_by_its_parts() -> None:
    told = tell(AgentTurn(at=at(0), text="Hm.", latency=TurnLatency(llm_ms=80)))
    assert told is not None
    assert [remark.plain for remark in told.remarks] == ["latency: model 80 ms"]


# --- JSON ------------------------------------------------------------------------------------------------


def test_json_is_stable_and_reads_back() -> None:
    found = FoundCall(record=RECORD, source="database", ui_url="http://x")
    values = json.loads(found.model_dump_json())
    assert sorted(values) == ["record", "retried", "source", "ui_url"]
    assert sorted(values["record"]) == ["final", "snapshot", "timeline"]
    assert CallRecord.model_validate(values["record"]) == RECORD


# --- the list --------------------------------------------------------------------------------------------


def listed(call_id: str, **values: object) -> ListedCall:
    given = {"call_id": call_id, "running": False, "source": "database", "started_at": START, **values}
    return ListedCall.model_validate(given)


def test_the_list_fits_into_eighty_columns() -> None:
    console = Console(file=io.StringIO(), width=80, highlight=False)
    full = {"from_number": "+351910000123", "agent": "reception", "turn_count": 9, "duration": 121.1}
    print_list(
        console,
        [
            listed(CALL_ID, outcome="caller_hung_up", error_count=1, **full),
            listed("CA01", running=True, source="temporal", status="wrapping_up", duration=7.0),
            listed("CA02", closed_as="terminated"),
        ],
    )
    assert isinstance(console.file, io.StringIO)
    lines = console.file.getvalue().splitlines()
    assert max(map(len, lines)) <= 80
    assert "CA5f0c2d8e41" in lines[1]
    assert "hung up" in lines[1]
    assert any("wrapping up" in line for line in lines)
    assert any("terminated" in line for line in lines)


def test_short_ids_stay_unique() -> None:
    ids = ["CA0000000000000001", "CA0000000000000002", "CB"]
    shown = short_ids(ids)
    assert len(set(shown.values())) == 3
    assert all(id.startswith(short) for id, short in shown.items())


# --- what people type ------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("given", "dialled"),
    [
        ("+15551234567", "+15551234567"),
        ("+1 (555) 123-4567", "+15551234567"),
        ("sip:desk@example.com", "sip:desk@example.com"),
        ("support", "support"),
    ],
)
def test_numbers_are_read_as_people_write_them(given: str, dialled: str) -> None:
    assert transfer_target(given) == dialled


@pytest.mark.parametrize("given", ["5551234567", "+0123456789", "+1555", "++1555123456", "", "   "])
def test_a_number_that_cannot_be_dialled_is_a_usage_error(given: str) -> None:
    with pytest.raises(UsageError):
        transfer_target(given)


def test_moments() -> None:
    now = datetime(2026, 11, 22, 12, tzinfo=UTC)
    assert moment("90m", now) == now - timedelta(minutes=90)
    assert moment("2026-11-21T10:00:00+00:00") == datetime(2026, 11, 21, 10, tzinfo=UTC)
    assert moment("2026-11-21").tzinfo is not None
    for wrong in ("yesterday", "2y", "999999w", ""):
        with pytest.raises(UsageError):
            moment(wrong)


def test_filters_know_what_exists() -> None:
    assert read_filters(outcome="transferred") == Filters(outcome="transferred")
    with pytest.raises(UsageError, match="no outcome 'transfered'") as error:
        read_filters(outcome="transfered")
    assert "caller_hung_up" in error.value.fix
    with pytest.raises(UsageError):
        read_filters(status="busy")


def test_durations_and_offsets() -> None:
    assert [duration(s) for s in (0.04, 9.96, 42, 121.1, 3840)] == [
        "0.0 s",
        "10.0 s",
        "42 s",
        "2 min 1 s",
        "1 h 4 min",
    ]
    assert [offset(at(s), START) for s in (-1, 9.16, 59.96, 3723.4)] == ["0:00.0", "0:09.2", "1:00.0", "1:02:03.4"]

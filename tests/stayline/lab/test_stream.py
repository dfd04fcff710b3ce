"""What a stream does with a bridge that does not read."""

from stayline.lab.events import EventLog
from stayline.lab.stream import MediaStream


def test_audio_that_a_slow_bridge_does_not_take_is_discarded_and_told_once() -> None:
    log = EventLog()
    stream = MediaStream(call_sid="CA1", account_sid="AC1", parameters={}, log=log, on_clear=lambda: None)
    for _ in range(300):
        stream.caller_audio(b"\xff" * 160)
    assert stream.discarded == 50
    assert [event.data["code"] for event in log.of("error")] == [31930]

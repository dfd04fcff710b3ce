"""A stream as the carrier sends it."""

from __future__ import annotations

from typing import Any, Final

Json = dict[str, Any]


def _media(number: int) -> Json:
    body = {"track": "inbound", "chunk": str(number), "timestamp": str(20 * number), "payload": "/////w=="}
    return {"event": "media", "sequenceNumber": str(number + 1), "streamSid": "MZ1", "media": body}


START: Final[Json] = {
    "event": "start",
    "sequenceNumber": "1",
    "streamSid": "MZ1",
    "start": {
        "accountSid": "AC" + "0" * 32,
        "streamSid": "MZ1",
        "callSid": "CA1",
        "tracks": ["inbound"],
        "mediaFormat": {"encoding": "audio/x-mulaw", "sampleRate": 8000, "channels": 1},
        "customParameters": {"token": "forged", "call": "out-1"},
    },
}
STREAM: Final[list[Json]] = [
    {"event": "connected", "protocol": "Call", "version": "1.0.0"},
    START,
    _media(1),
    _media(2),
    {"event": "mark", "sequenceNumber": "4", "streamSid": "MZ1", "mark": {"name": "0:1"}},
    {"event": "dtmf", "sequenceNumber": "5", "streamSid": "MZ1", "dtmf": {"track": "inbound_track", "digit": "1"}},
    {"event": "stop", "sequenceNumber": "6", "streamSid": "MZ1", "stop": {"accountSid": "AC1", "callSid": "CA1"}},
]

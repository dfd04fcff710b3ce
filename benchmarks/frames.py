"""What one 20 ms caller frame costs the bridge's event loop, without the speech engines: microseconds a frame.

    .venv/bin/python -m benchmarks.frames

Measured against the same loop over bare `json.loads` and base64 in the same run, so that the ratio means
something on a noisy machine.
"""

from __future__ import annotations

import base64
import json
import statistics
import time
from collections.abc import Callable

from media_bridge.audio.line import Line
from media_bridge.audio.playout import Playout
from media_bridge.carriers.twilio_stream import Media, StreamProtocol

FRAMES = 20_000
ROUNDS = 7


def messages() -> list[str]:
    payload = base64.b64encode(b"\x7f" * 160).decode()
    start = {
        "event": "start",
        "sequenceNumber": "1",
        "streamSid": "MZ1",
        "start": {
            "accountSid": "AC1",
            "streamSid": "MZ1",
            "callSid": "CA1",
            "tracks": ["inbound"],
            "mediaFormat": {"encoding": "audio/x-mulaw", "sampleRate": 8000, "channels": 1},
            "customParameters": {"token": "t"},
        },
    }
    media = [
        json.dumps(
            {
                "event": "media",
                "sequenceNumber": str(number + 2),
                "streamSid": "MZ1",
                "media": {
                    "track": "inbound",
                    "chunk": str(number + 1),
                    "timestamp": str(number * 20),
                    "payload": payload,
                },
            }
        )
        for number in range(FRAMES)
    ]
    return ['{"event":"connected","protocol":"Call","version":"1.0.0"}', json.dumps(start), *media]


def bare(texts: list[str]) -> None:
    for text in texts[2:]:
        base64.b64decode(json.loads(text)["media"]["payload"])


def bridge(texts: list[str]) -> None:
    """Protocol, recording line and playout: what the reader does with a frame before the recogniser."""
    protocol, line, playout = StreamProtocol(), Line(), Playout()
    for number, text in enumerate(texts):
        message = protocol.receive(text)
        if isinstance(message, Media):
            line.frame(len(message.audio))
            playout.due(number * 20)


def microseconds(work: Callable[[list[str]], None], texts: list[str]) -> float:
    begun = time.perf_counter()
    work(texts)
    return (time.perf_counter() - begun) / FRAMES * 1e6


if __name__ == "__main__":
    texts = messages()
    pairs = [(microseconds(bare, texts), microseconds(bridge, texts)) for _ in range(ROUNDS)]
    floor, cost = (statistics.median(column) for column in zip(*pairs, strict=True))
    ratio = statistics.median(b / a for a, b in pairs)
    print(f"bare JSON and base64 {floor:5.1f} us a frame")
    share = cost / 20_000
    print(f"the bridge           {cost:5.1f} us a frame, {ratio:.1f} times that; {share:.2%} of the frame's 20 ms")

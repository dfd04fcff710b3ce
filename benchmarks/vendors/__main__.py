"""The vendors as one process: websockets on one port, HTTP on another.

    python -m benchmarks.vendors --ledger vendors.json

Prints both ports as JSON when it listens, and writes the ledger when it is told to end (SIGTERM).
"""

from __future__ import annotations

import argparse
import asyncio
import gc
import json
import signal
from pathlib import Path
from urllib.parse import urlsplit

import uvloop
from picows import WSListener, WSUpgradeRequest, ws_create_server

from benchmarks.sound import REPLY
from benchmarks.vendors.deepgram import Deepgram
from benchmarks.vendors.elevenlabs import ElevenLabs
from benchmarks.vendors.ledger import Ledger
from benchmarks.vendors.llm import Llm, answers
from benchmarks.vendors.realtime import Realtime
from benchmarks.vendors.scribe import Scribe


def listener(ledger: Ledger, reply: str, request: WSUpgradeRequest) -> WSListener | None:
    """Who serves the address; `/v1/realtime/<number>` says whose session it is."""
    address = urlsplit(request.path.decode())
    if address.path == "/v1/listen":
        return Deepgram(ledger, address.query)
    if address.path == "/v1/speech-to-text/realtime":
        return Scribe(ledger, address.query)
    if address.path.endswith("/multi-stream-input"):
        return ElevenLabs(address.query)
    if address.path.startswith("/v1/realtime"):
        number = address.path.removeprefix("/v1/realtime").strip("/")
        return Realtime(ledger, int(number) if number else None, reply)
    return None


async def serve(ledger_path: Path, reply: str) -> None:
    ledger = Ledger()
    over = asyncio.Event()
    loop = asyncio.get_running_loop()
    for number in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(number, over.set)
    sockets = await ws_create_server(lambda request: listener(ledger, reply, request), "127.0.0.1", 0)
    made = answers(reply)
    http = await loop.create_server(lambda: Llm(ledger, made), "127.0.0.1", 0)
    ports = {name: server.sockets[0].getsockname()[1] for name, server in (("ws", sockets), ("http", http))}
    gc.freeze()
    print(json.dumps(ports), flush=True)
    await over.wait()
    ledger.write(ledger_path)


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--ledger", type=Path, required=True)
    parser.add_argument("--long", type=int, default=1, help="a reply is so many times the usual 1.9 s")
    given = parser.parse_args()
    uvloop.run(serve(given.ledger, " ".join([REPLY] * given.long)))

"""The floor: the least that a Python server can do between caller and vendors. No turn-taking, records or recovery.

    DEEPGRAM_BASE_URL=http://… OPENAI_BASE_URL=http://… ELEVENLABS_BASE_URL=http://… \
        python -m benchmarks.peers.relay --port 8000 [--realtime] [--uvloop]

A final transcript is put to the model, every sentence of the answer to the voice, its sound to the caller. An
interim transcript while the agent speaks clears the line.
"""

from __future__ import annotations

import argparse
import asyncio
import base64
import json
import os
import re
from typing import Any

import aiohttp
from aiohttp import web

DEEPGRAM, OPENAI, ELEVENLABS = (os.environ[f"{name}_BASE_URL"] for name in ("DEEPGRAM", "OPENAI", "ELEVENLABS"))
LISTEN = f"{DEEPGRAM}/v1/listen?model=nova-3&encoding=mulaw&sample_rate=8000&interim_results=true"
SPEAK = f"{ELEVENLABS}/v1/text-to-speech/21m00Tcm4TlvDq8ikWAM/multi-stream-input"
SPEAK += "?model_id=eleven_flash_v2_5&output_format=ulaw_8000"
SESSION = {
    "type": "realtime",
    "audio": {"input": {"format": {"type": "audio/pcmu"}}, "output": {"format": {"type": "audio/pcmu"}}},
}
HTTP: web.AppKey[aiohttp.ClientSession] = web.AppKey("http", aiohttp.ClientSession)


class TextCall:
    """Recogniser, model, voice."""

    def __init__(self, http: aiohttp.ClientSession, caller: web.WebSocketResponse) -> None:
        self.http, self.caller = http, caller
        self.stream_sid = ""
        self.replies = 0
        self.messages: list[dict[str, str]] = []

    async def run(self) -> None:
        async with (
            self.http.ws_connect(LISTEN) as stt,
            self.http.ws_connect(SPEAK) as tts,
            asyncio.TaskGroup() as group,
        ):
            tasks = [group.create_task(self.hear(stt, tts)), group.create_task(self.speak(tts))]
            async for message in self.caller:
                event = json.loads(message.data)
                if event["event"] == "media":
                    await stt.send_bytes(base64.b64decode(event["media"]["payload"]))
                elif event["event"] == "start":
                    self.stream_sid = event["streamSid"]
            for task in tasks:
                task.cancel()

    async def hear(self, stt: aiohttp.ClientWebSocketResponse, tts: aiohttp.ClientWebSocketResponse) -> None:
        async for message in stt:
            event = json.loads(message.data)
            text = event["channel"]["alternatives"][0]["transcript"] if event["type"] == "Results" else ""
            if text and event["speech_final"]:
                await self.answer(text, tts)
            elif text:
                await tts.send_json({"context_id": str(self.replies), "close_context": True})
                self.replies += 1
                await self.caller.send_json({"event": "clear", "streamSid": self.stream_sid})

    async def answer(self, text: str, tts: aiohttp.ClientWebSocketResponse) -> None:
        self.messages.append({"role": "user", "content": text})
        body = {"model": "gpt-6-luna", "messages": self.messages, "stream": True}
        said = sentence = ""
        context = str(self.replies)
        await tts.send_json({"text": " ", "context_id": context})
        async with self.http.post(f"{OPENAI}/v1/chat/completions", json=body) as response:
            async for line in response.content:
                if not line.startswith(b"data: {"):
                    continue
                for choice in json.loads(line[6:])["choices"]:
                    sentence += choice["delta"].get("content") or ""
                    if re.search(r"[.!?] $", sentence) or (choice["finish_reason"] and sentence):
                        await tts.send_json({"text": f"{sentence.strip()} ", "context_id": context, "flush": True})
                        said, sentence = said + sentence, ""
        self.messages.append({"role": "assistant", "content": said})

    async def speak(self, tts: aiohttp.ClientWebSocketResponse) -> None:
        async for message in tts:
            event = json.loads(message.data)
            if event["audio"] and event["contextId"] == str(self.replies):
                await self.caller.send_str(
                    f'{{"event":"media","streamSid":"{self.stream_sid}","media":{{"payload":"{event["audio"]}"}}}}'
                )


class RealtimeCall:
    """One model that hears and speaks."""

    def __init__(self, http: aiohttp.ClientSession, caller: web.WebSocketResponse) -> None:
        self.http, self.caller = http, caller
        self.stream_sid = ""

    async def run(self) -> None:
        url = f"{OPENAI}/v1/realtime?model=gpt-realtime-2.1"
        async with self.http.ws_connect(url) as model, asyncio.TaskGroup() as group:
            await model.send_json({"type": "session.update", "session": SESSION})
            speaking = group.create_task(self.speak(model))
            async for message in self.caller:
                event = json.loads(message.data)
                if event["event"] == "media":
                    payload = event["media"]["payload"]
                    await model.send_str(f'{{"type":"input_audio_buffer.append","audio":"{payload}"}}')
                elif event["event"] == "start":
                    self.stream_sid = event["streamSid"]
            speaking.cancel()

    async def speak(self, model: aiohttp.ClientWebSocketResponse) -> None:
        async for message in model:
            event: dict[str, Any] = json.loads(message.data)
            if event["type"] == "response.output_audio.delta":
                await self.caller.send_str(
                    f'{{"event":"media","streamSid":"{self.stream_sid}","media":{{"payload":"{event["delta"]}"}}}}'
                )
            elif event["type"] == "input_audio_buffer.speech_started":
                await self.caller.send_json({"event": "clear", "streamSid": self.stream_sid})


def application(kind: type[TextCall] | type[RealtimeCall]) -> web.Application:
    async def media(request: web.Request) -> web.WebSocketResponse:
        caller = web.WebSocketResponse(compress=False)
        await caller.prepare(request)
        await kind(request.app[HTTP], caller).run()
        return caller

    async def session(app: web.Application) -> Any:
        async with aiohttp.ClientSession(connector=aiohttp.TCPConnector(limit=0, keepalive_timeout=120)) as http:
            app[HTTP] = http
            yield

    app = web.Application()
    app.router.add_get("/ws", media)
    app.cleanup_ctx.append(session)
    return app


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--port", type=int, required=True)
    parser.add_argument("--realtime", action="store_true")
    parser.add_argument("--uvloop", action="store_true")
    given = parser.parse_args()
    if given.uvloop:
        import uvloop

        uvloop.install()
    app = application(RealtimeCall if given.realtime else TextCall)
    web.run_app(app, host="127.0.0.1", port=given.port, access_log=None, print=None)

"""One connection to the fake Gemini: the conversation, what it hears, what it says, and who interrupts whom."""

from __future__ import annotations

import array
import asyncio
import base64
import copy
import dataclasses
import json
import math
from collections.abc import Iterator
from typing import TYPE_CHECKING, Any

from tests.fakes.llm import Call, Ending, Say, Tokens, Wait, words
from tests.fakes.socket import FakeSocket, ProtocolError
from tests.fakes.sound import Bursts, Frame

if TYPE_CHECKING:
    from tests.fakes.gemini import FakeGemini

INPUT = "audio/pcm;rate=16000"
OUTPUT_RATE = 24_000
PIECE_MS = 100
SILENCE_MS = 500
_PERIOD = [round(9000 * math.sin(2 * math.pi * i / 60)) for i in range(60)]  # 400 Hz


@dataclasses.dataclass(slots=True)
class Snapshot:
    """What a handle stands for."""

    contents: list[dict[str, Any]] = dataclasses.field(default_factory=list)
    calls: dict[str, str] = dataclasses.field(default_factory=dict)  #: names of open tool calls by id


class PcmBursts(Bursts):
    """As `Bursts`, for 16-bit PCM at 16 kHz."""

    def feed(self, audio: bytes) -> Iterator[Frame]:
        audio = self._rest + audio
        size = self.FRAME_MS * 32
        whole = len(audio) - len(audio) % size
        self._rest = audio[whole:]
        for begin in range(0, whole, size):
            samples = array.array("h", audio[begin : begin + size])
            yield self._frame(sum(map(abs, samples)) > 500 * len(samples))


def tone(samples: int) -> bytes:
    return array.array("h", (_PERIOD * (samples // len(_PERIOD) + 1))[:samples]).tobytes()


class Session:
    def __init__(self, fake: FakeGemini, socket: FakeSocket, setup: dict[str, Any], taken_up: Snapshot) -> None:
        self._fake = fake
        self._socket = socket
        self.setup = setup
        self.contents = copy.deepcopy(taken_up.contents)
        self._calls = dict(taken_up.calls)
        turns = setup.get("realtimeInputConfig", {})
        self._silence_ms = turns.get("automaticActivityDetection", {}).get("silenceDurationMs", SILENCE_MS)
        self._may_be_interrupted = turns.get("activityHandling") != "NO_INTERRUPTION"
        self._blocking = {
            function["name"]: function.get("behavior") == "BLOCKING"
            for tool in setup.get("tools", [])
            for function in tool.get("functionDeclarations", [])
        }
        self._bursts = PcmBursts()
        self.audio_bytes = 0
        self._task: asyncio.Task[None] | None = None
        self._due = False  #: an answer is
        self._waiting: list[dict[str, Any]] = []  #: turns of the caller that came during an answer
        self._late = ""  #: words of the caller that come after the answer
        self._said = ""

    @property
    def is_open(self) -> bool:
        return not self._socket.ws.closed

    @property
    def answering(self) -> bool:
        return self._task is not None and not self._task.done()

    async def send(self, message: dict[str, Any]) -> None:
        """Google's frames are binary."""
        await self._socket.send(json.dumps(message).encode())

    async def go_away(self, seconds: float) -> None:
        await self.send({"goAway": {"timeLeft": f"{seconds:g}s"}})

    async def end(self, code: int, reason: str = "") -> None:
        await self._socket.ws.close(code=code, message=reason.encode())

    async def stop(self) -> None:
        if self._task is not None:
            self._task.cancel()
            await asyncio.gather(self._task, return_exceptions=True)

    # --- what the client sends -------------------------------------------------------------------------------

    async def take(self, kind: str, value: dict[str, Any]) -> None:
        if kind == "clientContent":
            await self._content(value)
        elif kind == "toolResponse":
            await self._results(value["functionResponses"])
        else:
            await self._realtime(value)

    async def _content(self, value: dict[str, Any]) -> None:
        if self.answering:
            await self._interrupt()
        for turn in value.get("turns", []):
            if turn.get("role") not in ("user", "model") or not all(part.get("text") for part in turn["parts"]):
                raise ProtocolError(1007, "Request contains an invalid argument.")
            self.contents.append(turn)
        if value.get("turnComplete", True):
            self._answer()

    async def _results(self, results: list[dict[str, Any]]) -> None:
        speak = False
        for result in results:
            name = self._calls.pop(result.get("id"), None)
            if name is None or name != result.get("name") or set(result["response"]) - {"output", "error"}:
                raise ProtocolError(1008, "Requested entity was not found.")
            self.contents.append({"role": "user", "parts": [{"functionResponse": result}]})
            if self._blocking.get(name):
                speak = not any(self._blocking.get(other) for other in self._calls.values())
            else:
                speak = speak or result.get("scheduling", "WHEN_IDLE") == "WHEN_IDLE"
        if speak:
            self._answer()

    async def _realtime(self, value: dict[str, Any]) -> None:
        if set(value) != {"audio"} or value["audio"].get("mimeType") != INPUT:
            raise ProtocolError(1007, "Request contains an invalid argument.")
        pcm = base64.b64decode(value["audio"]["data"], validate=True)
        if len(pcm) % 2:
            raise ProtocolError(1007, "Audio must be whole 16-bit samples.")
        self.audio_bytes += len(pcm)
        for frame in self._bursts.feed(pcm):
            await self._frame(frame)

    async def _frame(self, frame: Frame) -> None:
        if frame.starts:
            if self.answering and self._may_be_interrupted:
                await self._interrupt()
            await self._cancel_calls()
        elif frame.begun_ms is not None and frame.silent_ms >= self._silence_ms:
            self._bursts.end()
            line = self._fake.lines.pop(0) if self._fake.lines else ""
            if line:
                await self._heard(line)

    async def _cancel_calls(self) -> None:
        """New input cancels the calls for which the model waits (docs: migrate to Gemini 3.8 Live)."""
        ids = [call for call, name in self._calls.items() if self._blocking.get(name)]
        if ids:
            await self.send({"toolCallCancellation": {"ids": ids}})
            for call in ids:
                del self._calls[call]

    async def _heard(self, line: str) -> None:
        match self._fake.words:
            case "pieces":
                for word in words(line):
                    await self.send({"serverContent": {"inputTranscription": {"text": word}}})
            case "whole":
                await self.send({"serverContent": {"inputTranscription": {"text": line, "finished": True}}})
            case "late":
                self._late = line
        self._waiting.append({"role": "user", "parts": [{"text": line}]})
        self._answer()

    async def _interrupt(self) -> None:
        await self.stop()
        self._remember()
        await self.send({"serverContent": {"interrupted": True}})
        await self._complete({"turnComplete": True}, None)

    # --- what it says ----------------------------------------------------------------------------------------

    def _answer(self) -> None:
        """Now, or when the answer under way is over."""
        self._due = True
        if not self.answering:
            self._task = asyncio.create_task(self._answer_all())

    async def _answer_all(self) -> None:
        while self._due:
            self._due = False
            await self._generate()

    async def _generate(self) -> None:
        self.contents += self._waiting
        self._waiting.clear()
        await self.send({"sessionResumptionUpdate": {}})  # not resumable while the model is at work
        thought = {"text": "**Considering the request**", "thought": True}
        await self.send({"serverContent": {"modelTurn": {"parts": [thought]}}})
        end: dict[str, Any] = {"turnComplete": True}
        tokens: Tokens | None = None
        pieces = 0
        for part in self._fake.reply({"setup": self.setup, "contents": copy.deepcopy(self.contents)}):
            match part:
                case Say(text):
                    pieces = await self._say(f" {text}" if self._said else text, pieces)
                case Call():
                    await self._call(part)
                case Wait(until):
                    await until.wait()
                case Ending(reason):
                    end["turnCompleteReason"] = reason
                case Tokens():
                    tokens = part
        self._remember()
        said = pieces > 0
        if any(self._blocking.get(name) for name in self._calls.values()):
            return  # the turn goes on with the results
        if said:
            await self.send({"serverContent": {"generationComplete": True}})
        if self._late:
            late, self._late = self._late, ""
            await self.send({"serverContent": {"inputTranscription": {"text": late}}})
        if said and self._fake.played is not None:
            await self._fake.played.wait()
        await self._complete(end, tokens)

    async def _say(self, text: str, pieces: int) -> int:
        """Word by word: what it says, and its sound. Every second time both are in one message."""
        at = 0
        for number, word in enumerate(words(text)):
            until = round((at + len(word)) * self._fake.pace.ms_per_char * OUTPUT_RATE / 1000)
            begin = round(at * self._fake.pace.ms_per_char * OUTPUT_RATE / 1000)
            at += len(word)
            self._said += word
            told = {"outputTranscription": {"text": word}}
            if number % 2:
                await self.send({"serverContent": told})
                told = {}
            step = PIECE_MS * OUTPUT_RATE // 1000
            for first in range(begin, until, step):
                await self._fake.pace.wait(pieces)
                sound = base64.b64encode(tone(min(step, until - first))).decode()
                data = {"inlineData": {"mimeType": f"audio/pcm;rate={OUTPUT_RATE}", "data": sound}}
                await self.send({"serverContent": {"modelTurn": {"parts": [data]}, **told}})
                told = {}
                pieces += 1
                await asyncio.sleep(0)
        return pieces

    async def _call(self, call: Call) -> None:
        self._remember()
        identity = call.id or f"function-call-{len(self.contents)}{len(self._calls)}"
        self._calls[identity] = call.name
        wanted = {"id": identity, "name": call.name, "args": call.arguments}
        self.contents.append({"role": "model", "parts": [{"functionCall": wanted}]})
        await self.send({"toolCall": {"functionCalls": [wanted]}})

    def _remember(self) -> None:
        """What was said is part of the conversation."""
        said, self._said = self._said, ""
        if said:
            self.contents.append({"role": "model", "parts": [{"text": said}]})

    async def _complete(self, end: dict[str, Any], tokens: Tokens | None) -> None:
        tokens = tokens or Tokens(len(self.contents), 1)
        usage = {"promptTokenCount": tokens.input, "responseTokenCount": tokens.output}
        usage["totalTokenCount"] = tokens.input + tokens.output
        if tokens.cached:
            usage["cachedContentTokenCount"] = tokens.cached
        await self.send({"serverContent": end, "usageMetadata": usage})
        handle = f"handle-{len(self._fake.snapshots) + 1}"
        self._fake.snapshots[handle] = Snapshot(copy.deepcopy(self.contents), dict(self._calls))
        await self.send({"sessionResumptionUpdate": {"newHandle": handle, "resumable": True}})

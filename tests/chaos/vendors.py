"""The vendors of the chaos runs: the fakes, hearing and speaking the readable speech, with faults by role.

Each role has a first vendor, which the faults strike, and a second one that takes over. What is recorded of the
requests is thrown away: a thousand calls are a lot of audio.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from contextlib import AsyncExitStack
from typing import Any, Self

from aiohttp import web

from tests.chaos import speech
from tests.fakes import openai_realtime
from tests.fakes.anthropic import FakeAnthropic
from tests.fakes.deepgram import FakeDeepgram
from tests.fakes.deepgram_listen import FluxListener, Heard, NovaListener
from tests.fakes.elevenlabs import FakeElevenLabs
from tests.fakes.llm import Call, Part, Say
from tests.fakes.misbehaviour import FakeServer, Misbehaviour, Recorded
from tests.fakes.openai import FakeOpenAI
from tests.fakes.socket import FakeSocket
from tests.fakes.sound import Bursts, Frame

MS_PER_CHAR = 20  #: a frame
STORY = "It is long, and nobody has ever heard the whole of it, for there is always somebody who cuts in. " * 2

FIRST = {"stt": "/v1/listen", "tts": "/v1/text-to-speech", "llm": "/v1/responses", "realtime": "/v1/realtime"}
"""Where the first vendor of each role is asked. Realtime has no other."""


class _ReadableBursts(Bursts):
    """Bursts of sound, with what they say."""

    def __init__(self) -> None:
        super().__init__()
        self.reader = speech.Reader()

    def feed(self, audio: bytes) -> Iterator[Frame]:
        audio = self._rest + audio
        size = self.FRAME_MS * 8
        whole = len(audio) - len(audio) % size
        self._rest = audio[whole:]
        for begin in range(0, whole, size):
            frame = audio[begin : begin + size]
            letter = self.reader.take(frame)
            yield self._frame(letter is not None)

    def end(self) -> None:
        super().end()
        self.reader.clear()


class _Understands:
    """A listener whose script is the sound itself."""

    bursts: _ReadableBursts
    heard: Heard | None

    def begin(self) -> None:
        self.heard = Heard(self.bursts.reader.text)

    def words(self) -> list[dict[str, Any]]:
        self.heard = Heard(self.bursts.reader.text)
        return super().words()  # type: ignore[misc, no-any-return]

    def give_back(self) -> None:
        """The sound is sent again by whoever wants it heard."""


class _Nova(_Understands, NovaListener):  # type: ignore[misc]
    def __init__(self, *arguments: Any) -> None:
        super().__init__(*arguments)
        self.bursts = _ReadableBursts()


class _Flux(_Understands, FluxListener):  # type: ignore[misc]
    def __init__(self, *arguments: Any) -> None:
        super().__init__(*arguments)
        self.bursts = _ReadableBursts()


class _VoiceSession(openai_realtime.VoiceSession):
    bursts: _ReadableBursts

    def __init__(self, *arguments: Any) -> None:
        super().__init__(*arguments)
        self.bursts = _ReadableBursts()

    def understood(self, heard: openai_realtime.Heard) -> openai_realtime.Heard:
        return openai_realtime.Heard(self.bursts.reader.text)


class _VoiceModel(openai_realtime.VoiceModel):
    """Hears and speaks the readable speech."""

    def sound(self, text: str, ms_per_char: float) -> bytes:
        return speech.utter(text)

    def session(self, socket: FakeSocket, model: str) -> _VoiceSession:
        self.sessions.clear()
        return _VoiceSession(self, socket, model)


class _Forgets(list[Any]):
    def append(self, item: Any) -> None:
        pass


class _Troubled(FakeServer):
    """A fake whose faults are of a path, and which keeps no record."""

    def __init__(self, *arguments: Any, **named: Any) -> None:
        super().__init__(*arguments, **named)
        self.troubles: dict[str, Misbehaviour] = {}  #: by the path's begin
        self.asked: dict[str, int] = {}
        self.open: list[tuple[str, Any]] = []

    def fault_of(self, request: web.Request) -> Misbehaviour | None:
        for path, fault in self.troubles.items():
            if request.path.startswith(path):
                return fault
        return None

    async def begin(self, request: web.Request) -> tuple[Recorded, Misbehaviour | None]:
        recorded, fault = await super().begin(request)
        recorded.messages = _Forgets()
        self.requests.clear()
        self.sockets[:] = [socket for socket in self.sockets if not socket.ws.closed]
        if hasattr(self, "answered"):
            del self.answered[:]
        if hasattr(self, "listened"):
            del self.listened[:]
        return recorded, fault

    def strike(self, path: str, fault: Misbehaviour) -> None:
        """New requests meet the fault, and so do the connections that are open."""
        self.troubles[path] = fault
        for socket in self.sockets:
            if not socket.path.startswith(path):
                continue
            if fault.what in ("reset", "status"):
                socket.abort()
            else:
                socket.misbehave(fault)

    def heal(self, path: str) -> None:
        self.troubles.pop(path, None)


class Deepgram(_Troubled, FakeDeepgram):
    nova_listener = _Nova
    flux_listener = _Flux


class ElevenLabs(_Troubled, FakeElevenLabs):
    pass


class OpenAI(_Troubled, FakeOpenAI):
    pass


class Anthropic(_Troubled, FakeAnthropic):
    pass


def _spoken(text: str, ms_per_char: float) -> bytes:
    return speech.utter(text)


class Vendors:
    """All of them. `environment` tells the bridges where they are, unless something stands in between."""

    def __init__(self) -> None:
        self.deepgram = Deepgram(ms_per_char=MS_PER_CHAR)
        self.elevenlabs = ElevenLabs(ms_per_char=MS_PER_CHAR)
        voice = _VoiceModel(_answer_realtime, ms_per_char=MS_PER_CHAR)
        self.openai = OpenAI(_answer_openai, realtime=voice)
        self.anthropic = Anthropic(_answer_anthropic)
        self.deepgram.sound = self.elevenlabs.sound = _spoken
        self._stack = AsyncExitStack()

    async def __aenter__(self) -> Self:
        for fake in self.all.values():
            await self._stack.enter_async_context(fake)
        return self

    async def __aexit__(self, *error: object) -> None:
        await self._stack.aclose()

    @property
    def all(self) -> dict[str, _Troubled]:
        return {
            "DEEPGRAM": self.deepgram,
            "ELEVENLABS": self.elevenlabs,
            "OPENAI": self.openai,
            "ANTHROPIC": self.anthropic,
        }

    def environment(self, urls: dict[str, str]) -> dict[str, str]:
        found = {f"{name}_BASE_URL": urls.get(name, fake.url) for name, fake in self.all.items()}
        keys = (self.deepgram.api_key, self.elevenlabs.api_key, self.openai.key, self.anthropic.key)
        return found | {f"{name}_API_KEY": key for name, key in zip(self.all, keys, strict=True)}

    def strike(self, role: str, fault: Misbehaviour) -> None:
        """The first vendor of `stt`, `llm`, `tts` or `realtime` goes wrong until `heal`."""
        self._first(role).strike(FIRST[role], fault)

    def heal(self, role: str) -> None:
        self._first(role).heal(FIRST[role])

    def _first(self, role: str) -> _Troubled:
        return {"stt": self.deepgram, "tts": self.elevenlabs, "llm": self.openai, "realtime": self.openai}[role]


# --- the mind of the models ------------------------------------------------------------------------------


def _answer(said: list[str], done: list[str], called: str) -> Sequence[Part]:
    """Answer all that is unanswered.

    Args:
        said: what the caller said since the agent last spoke; the first word of each is its tag.
        done: results of tools since then.
        called: all tools so far, with their arguments: what was asked for is not asked for again.
    """
    if not said and "end_call" in called:
        return [Say("Goodbye.")]
    if not said and "transfer_call" in called:
        return [Say("I connect you now.")]
    words = [f"Done: {result}." for result in done]
    for text in said:
        tag, _, wish = text.partition(" ")
        if wish.startswith("book"):
            if tag not in called:
                return [Call("book", {"what": tag})]
            if not any(tag in result for result in done):
                words.append(f"It is booked, {tag}.")
        elif wish.startswith("tell"):
            words.append(f"This is {tag}. {STORY}That was {tag}.")
        elif wish.startswith("connect"):
            return [Say(f"I connect you, {tag}."), Call("transfer_call", {"to": "desk"})]
        elif wish.startswith("goodbye"):
            return [Say(f"Goodbye, {tag}."), Call("end_call", {})]
        else:
            words.append(f"You said {text}.")
    return [Say(" ".join(words) or "Please go on.")]


def _answer_openai(body: dict[str, Any]) -> Sequence[Part]:
    items = body["input"]
    called = str([item for item in items if item.get("type") == "function_call"])
    said, done = [], []
    for item in reversed(items):
        if item.get("role") == "assistant":
            break
        if item.get("role") == "user":
            said.insert(0, str(item["content"]))
        elif item.get("type") == "function_call_output":
            done.insert(0, str(item["output"]).strip('"'))
    return _answer(_apart(said), done, called)


def _answer_realtime(asked: openai_realtime.Asked) -> Sequence[Part]:
    if asked["instructions"].startswith("Say exactly"):
        return openai_realtime.obey(asked)
    said, done = [], []
    for role, text in reversed(asked["memory"]):
        if role == "assistant":
            break
        if role == "user":
            said.insert(0, text)
        elif role == "function_call_output":
            done.insert(0, text.strip('"'))
        elif role == "system" and (ended := re.fullmatch(r"The tool \w+ has ended. Result: (.*)", text)):
            done.insert(0, ended[1].strip('"'))
    told = [text for role, text in asked["memory"] if role == "system" and "do not call it again" in text]
    return _answer(_apart(said), done, str(asked["called"]) + str(told))


def _answer_anthropic(body: dict[str, Any]) -> Sequence[Part]:
    said, done = [], []
    called = ""
    for message in body["messages"]:
        content = message["content"]
        blocks = [{"type": "text", "text": content}] if isinstance(content, str) else content
        for block in blocks:
            if block["type"] == "tool_use":
                called += str(block)
            elif message["role"] == "assistant":
                said, done = [], []
            elif block["type"] == "tool_result":
                done.append(str(block["content"]).strip('"'))
            elif block["type"] == "text":
                said.append(block["text"])
    return _answer(_apart(said), done, called)


def _apart(said: list[str]) -> list[str]:
    """Utterances that were joined into one message, by the tags that begin them."""
    words = " ".join(said).split()
    apart: list[str] = []
    for word in words:
        if not apart or (word[:1] == "c" and word[1:2].isdigit()):
            apart.append(word)
        else:
            apart[-1] += f" {word}"
    return apart

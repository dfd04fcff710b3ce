"""Gemini Live, as its clients see it: `BidiGenerateContent`, as strict as Google.

    async with FakeGemini(lines=["What time do you open?"]) as fake:
        ... ProviderConfig("google", "gemini-3.8-live", api_key=fake.api_key, base_url=fake.url)

It hears bursts of sound by their energy; each is the next of its `lines`, whatever the sound was ("": a noise). It
answers with what `reply` makes of `{"setup": ..., "contents": [...]}`: parts as the fakes of language models have
them, spoken as a 24 kHz tone of 60 ms a character. The default repeats what was said, and says what it is told to.

    fake.connections[-1]        # a live one: `go_away`, `end`, `contents`, `setup`
    fake.pace.hold_after = 2    # two pieces of sound, then none until `fake.pace.let_go()`
    fake.played = asyncio.Event()   # Gemini believes that its answer is still being played, until this is set
    fake.accepts = False            # a session is never accepted
    fake.words = "late"         # the caller's words come after the answer; else before it, in pieces or whole
"""

from __future__ import annotations

import asyncio
import json
import re
from collections.abc import Callable, Sequence
from typing import Any, Literal

from aiohttp import web
from google.genai import types
from pydantic import ValidationError

from tests.fakes.gemini_session import Session, Snapshot
from tests.fakes.llm import Part, Say
from tests.fakes.misbehaviour import FakeServer
from tests.fakes.socket import FakeSocket, ProtocolError
from tests.fakes.sound import Pace

Reply = Callable[[dict[str, Any]], Sequence[Part]]

PATH = "/ws/google.ai.generativelanguage.{version}.GenerativeService.BidiGenerateContent"
MODELS = (
    "gemini-3.8-live",
    "gemini-3.8-live-extended-thinking",
    "gemini-2.5-flash-native-audio-preview-09-2025",
)
KINDS = {"setup", "clientContent", "realtimeInput", "toolResponse"}
_TOLD = re.compile(r"word for word[^:]*:\s*(.+)$", re.DOTALL)


class FakeGemini(FakeServer):
    def __init__(
        self,
        reply: Reply | None = None,
        *,
        lines: Sequence[str] = (),
        api_key: str = "google-test-key",
        ms_per_char: float = 60,
    ) -> None:
        super().__init__()
        self.reply: Reply = reply or echo
        self.lines = list(lines)
        self.api_key = api_key
        self.pace = Pace(ms_per_char)
        self.words: Literal["pieces", "whole", "late"] = "pieces"
        self.played: asyncio.Event | None = None
        self.accepts = True  #: sessions; False: it never says so
        self.connections: list[Session] = []
        self.snapshots: dict[str, Snapshot] = {}  #: by handle
        self.closed_with: list[tuple[int, str]] = []  #: what clients were refused for

    def routes(self) -> list[web.RouteDef]:
        return [web.get(PATH.format(version="{version:v1|v1beta|v1alpha}"), self._serve)]

    def error_response(self, status: int, headers: dict[str, str]) -> web.Response:
        name = {401: "UNAUTHENTICATED", 403: "PERMISSION_DENIED", 429: "RESOURCE_EXHAUSTED"}.get(
            status, "UNAVAILABLE"
        )
        body = {"error": {"code": status, "message": f"The request failed: {name}.", "status": name}}
        return web.json_response(body, status=status, headers=headers)

    async def _serve(self, request: web.Request) -> web.WebSocketResponse:
        recorded, fault = await self.begin(request)
        error = {"error": {"code": 500, "message": "Internal error encountered.", "status": "INTERNAL"}}
        socket = FakeSocket(self, request, recorded, fault, error=error)

        async def talk() -> None:
            try:
                key = recorded.headers.get("x-goog-api-key") or (recorded.param("key") or [""])[0]
                if key != self.api_key:
                    raise ProtocolError(1007, "API key not valid. Please pass a valid API key.")
                await self._converse(socket)
            except ProtocolError as refusal:
                self.closed_with.append((refusal.code, refusal.reason))
                raise

        return await socket.serve(talk)

    async def _converse(self, socket: FakeSocket) -> None:
        session: Session | None = None
        try:
            async for message in socket.messages(30.0, ProtocolError(1011, "Deadline expired.")):
                kind = check(message)
                assert isinstance(message, dict)
                if (kind == "setup") != (session is None):
                    raise ProtocolError(1007, "setup must be the first message and only the first")
                if session is None:
                    session = Session(self, socket, message["setup"], self._taken_up(message["setup"]))
                    self.connections.append(session)
                    if self.accepts:
                        await session.send({"setupComplete": {}})
                else:
                    await session.take(kind, message[kind])
        finally:
            if session is not None:
                await session.stop()

    def _taken_up(self, setup: dict[str, Any]) -> Snapshot:
        model = setup["model"].removeprefix("models/")
        if model not in MODELS:
            text = f"models/{model} is not found for API version v1, or is not supported for bidiGenerateContent."
            raise ProtocolError(1008, text)
        if "thinkingConfig" in setup["generationConfig"] and model == "gemini-3.8-live":
            raise ProtocolError(1007, "Thinking is not supported for this model.")
        handle = setup.get("sessionResumption", {}).get("handle")
        if handle is None:
            return Snapshot()
        if handle not in self.snapshots:
            raise ProtocolError(1008, "BidiGenerateContent session not found")
        if any(connection.is_open for connection in self.connections):
            raise ProtocolError(1011, "Internal error encountered.")
        return self.snapshots[handle]


def check(message: dict[str, Any] | bytes) -> str:
    """The kind of a client's message.

    Raises:
        ProtocolError: Google's own types do not know it.
    """
    if isinstance(message, bytes) or len(message) != 1 or not KINDS & set(message):
        raise ProtocolError(1007, "Invalid JSON payload received.")
    (kind,) = message
    rest = dict(message)
    try:
        if kind == "setup":
            # The SDK has no type for a setup with this; it puts it in from its LiveConnectConfig.
            rest = {"setup": {k: v for k, v in message["setup"].items() if k != "realtimeInputConfig"}}
            turns = message["setup"].get("realtimeInputConfig", {})
            types.RealtimeInputConfig.model_validate_json(json.dumps(turns))
            _known(turns.get("activityHandling"), types.ActivityHandling)
            _check_setup(message["setup"])
        types.LiveClientMessage.model_validate_json(json.dumps(rest))
    except (ValidationError, LookupError, AttributeError, TypeError) as error:
        raise ProtocolError(1007, f"Invalid value in {kind}: {type(error).__name__}") from None
    return kind


def _check_setup(setup: dict[str, Any]) -> None:
    generation = setup["generationConfig"]
    if generation["responseModalities"] != ["AUDIO"] or not setup["model"].startswith("models/"):
        raise ProtocolError(1007, "Request contains an invalid argument.")
    if "enableAffectiveDialog" in generation or "proactivity" in setup:
        raise ProtocolError(1007, "Affective dialog and proactive audio cannot be set.")
    for tool in setup.get("tools", []):
        for function in tool.get("functionDeclarations", []):
            _known(function.get("behavior"), types.Behavior)
            if not re.fullmatch(r"[A-Za-z_][\w.:-]{0,127}", function["name"]) or {
                "parameters",
                "parametersJsonSchema",
            } <= set(function):
                raise ProtocolError(1007, "Invalid function declaration.")
            schema = function.get("parametersJsonSchema")
            if schema is not None and (schema["type"] != "object" or not schema["properties"]):
                raise ProtocolError(1007, "parameters.properties: should be non-empty for OBJECT type")


def _known(value: object, enum: Any) -> None:
    """Google's enums take any word and warn; the server does not."""
    if value is not None and value not in {member.value for member in enum}:
        raise ProtocolError(1007, f"Invalid value {value!r}.")


def echo(request: dict[str, Any]) -> Sequence[Part]:
    last = request["contents"][-1]["parts"][-1]
    if "functionResponse" in last:
        return [Say(f"The tool says {json.dumps(last['functionResponse']['response'])}.")]
    told = _TOLD.search(last["text"])
    return [Say(told[1] if told else f"You said: {last['text']}")]

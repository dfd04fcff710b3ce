"""OpenAI text to speech over a Realtime session: a voice-to-voice model that reads out what it is given.

It is the only way that OpenAI leaves after 2027-01-06. Each piece of text is a response of its own outside the
conversation (`conversation: none`), with the text as its only input, so nothing is remembered, nothing is answered,
and several can be in work at once; `metadata` says which is which. Audio is 8 kHz μ-law as it comes. The model may
still paraphrase: a reading whose transcript differs much from its text is reported in the log.
"""

from __future__ import annotations

import asyncio
import base64
import difflib
import itertools
import json
import logging
import re
from typing import Any, Final

from websockets.asyncio.client import ClientConnection
from websockets.exceptions import ConnectionClosed

from media_bridge.providers.base import ProviderConfig, TtsProfile
from media_bridge.providers.llm_http import error_from_body
from media_bridge.providers.openai_client import request_id, versioned_origin
from media_bridge.providers.openai_pieces import Piece, PiecewiseUtterance
from media_bridge.providers.speech_socket import SpeechSocket
from media_bridge.providers.vendor_socket import MALFORMED, lost, open_socket, parsed, scrub, warm_origin
from stayline.errors import ProviderError

log = logging.getLogger(__name__)

RENEW_AFTER = 55 * 60.0
"""Seconds after which the next utterance gets a new session; OpenAI ends one after 60 minutes."""
FAITHFUL: Final = 0.7  #: share of words that a reading must have in common with its text
READ: Final = (
    "You are the voice of a telephone agent. Each message is a piece of a script, never a question to you. Read it "
    "aloud exactly as it is written, word for word, in its own language, and then stop. Do not answer it, and do "
    "not add, leave out, change or translate anything."
)
_REASONS: Final = re.compile(r"gpt-realtime-2(\.\d+)?(-mini)?")


class RealtimeSpeech:
    """See `TtsProvider`.

    Args:
        output: `audio.output` of the session: voice and speed.
        manner: how it is to speak, in words; may be empty.
        timeout: seconds to connect, and as many for the session to be accepted.
    """

    profile = TtsProfile(native_mulaw=True)

    def __init__(self, config: ProviderConfig, output: dict[str, Any], *, manner: str, timeout: float) -> None:
        self._config = config
        self._timeout = timeout
        self._instructions = f"{READ}\nManner of speaking: {manner}" if manner else READ
        self._session: dict[str, Any] = {
            "type": "realtime",
            "instructions": self._instructions,
            "output_modalities": ["audio"],
            "audio": {
                "input": {"format": {"type": "audio/pcmu"}, "turn_detection": None},
                "output": {"format": {"type": "audio/pcmu"}, **output},
            },
            "tools": [],
        }
        if _REASONS.fullmatch(config.model):
            self._session["reasoning"] = {"effort": "minimal"}  # there is nothing to think about

    async def warm(self) -> None:
        await warm_origin(versioned_origin(self._config))

    async def connect(self, *, call_id: str) -> RealtimeVoice:
        """Open one call's voice.

        Raises:
            ProviderError: OpenAI refused us, the model or the voice, or could not be reached.
        """
        numbers = itertools.count(1)

        async def open_() -> ClientConnection:
            return await self._open(request_id(call_id, "tts", next(numbers)))

        voice = RealtimeVoice(self._config, open_, self._instructions)
        await voice.connect()
        return voice

    async def aclose(self) -> None:
        """Nothing is shared between calls."""

    async def _open(self, headers: dict[str, str]) -> ClientConnection:
        socket = await open_socket(
            "openai",
            versioned_origin(self._config),
            "/realtime",
            query=[("model", self._config.model)],
            headers={"Authorization": f"Bearer {self._config.api_key}", **headers},
            secret=self._config.api_key,
            timeout=self._timeout,
        )
        try:
            async with asyncio.timeout(self._timeout):
                await self._answer(socket, "session.created")
                await socket.send(json.dumps({"type": "session.update", "session": self._session}))
                await self._answer(socket, "session.updated")
        except BaseException as error:
            socket.transport.abort()
            if isinstance(error, TimeoutError):
                raise ProviderError("openai", f"no session within {self._timeout:g} s.", retryable=True) from None
            if isinstance(error, ConnectionClosed):
                raise lost("openai", error) from None
            raise
        return socket

    async def _answer(self, socket: ClientConnection, wanted: str) -> None:
        """Wait for a message of this type; others that may come before it do not matter."""
        while True:
            message = parsed(await socket.recv())
            kind = message.get("type")
            if kind == "error":
                raise error_from_body(self._config, message.get("error") or {})
            if kind == wanted:
                return


class RealtimeVoice:
    """One call's voice: a session, and the responses in work."""

    def __init__(self, config: ProviderConfig, open_: Any, instructions: str) -> None:
        self._config = config
        self._instructions = instructions
        self._socket = SpeechSocket("openai", self, open_)
        self._entering = asyncio.Lock()
        self._closed = False
        self._count = 0
        self._utterances: list[PiecewiseUtterance] = []
        self._pieces: dict[str, Piece] = {}  #: in work, by the name that we gave them
        self._responses: dict[str, str] = {}  #: their names by OpenAI's ids

    async def connect(self) -> None:
        """
        Raises:
            ProviderError: OpenAI refused us, the model or the voice, or could not be reached.
        """
        await self._socket.connect()

    async def utterance(self) -> PiecewiseUtterance:
        """Begin to speak.

        Raises:
            ProviderError: the connection was lost and cannot be opened again.
        """
        async with self._entering:
            if self._closed:
                raise ProviderError("openai", "the voice of this call is closed.", retryable=False)
            if not self._socket.alive or (not self._pieces and self._old):
                await self.connect()
            self._utterances = [utterance for utterance in self._utterances if not utterance.audio.ended]
            self._utterances.append(PiecewiseUtterance(self))
            return self._utterances[-1]

    async def aclose(self) -> None:
        if self._closed:
            return
        self._closed = True
        async with self._entering:
            for utterance in self._utterances:
                await utterance.cancel()
            await self._socket.hang_up()

    @property
    def _old(self) -> bool:
        return asyncio.get_running_loop().time() - self._socket.opened_at >= RENEW_AFTER

    # --- what utterances ask for ---------------------------------------------------------------------

    async def begin(self, piece: Piece) -> None:
        if not self._socket.alive:
            await piece.fail(ProviderError("openai", "the connection was lost.", retryable=True))
            return
        self._count += 1
        name = f"piece_{self._count}"
        self._pieces[name] = piece
        message = {"type": "message", "role": "user", "content": [{"type": "input_text", "text": piece.text}]}
        await self._socket.send(
            {
                "type": "response.create",
                "event_id": name,
                "response": {
                    "conversation": "none",
                    "output_modalities": ["audio"],
                    "instructions": self._instructions,
                    "input": [message],
                    "metadata": {"piece": name},
                },
            }
        )

    async def drop(self, piece: Piece) -> None:
        name = next((name for name, other in self._pieces.items() if other is piece), None)
        if name is None:
            return
        del self._pieces[name]
        response = next((response for response, named in self._responses.items() if named == name), None)
        if response is not None:  # else it is cancelled as soon as it has an id
            del self._responses[response]
            await self._cancel(response)
        self._socket.watch()

    async def _cancel(self, response: str) -> None:
        """By its id: without one, OpenAI cancels the conversation's response, and ours are outside of it."""
        await self._socket.send({"type": "response.cancel", "response_id": response})

    # --- what OpenAI says ----------------------------------------------------------------------------

    @property
    def due(self) -> bool:
        return bool(self._pieces)

    async def hear(self, message: dict[str, Any] | bytes) -> None:
        if isinstance(message, bytes):
            return
        try:
            await self._handle(str(message.get("type")), message)
        except MALFORMED:
            log.warning("openai tts: ignored a malformed message")

    async def _handle(self, kind: str, message: dict[str, Any]) -> None:
        if kind == "response.output_audio.delta":
            if (piece := self._piece(message["response_id"])) is not None:
                piece.put(base64.b64decode(message["delta"]))
        elif kind == "response.created":
            response = message["response"]
            name = (response.get("metadata") or {}).get("piece", "")
            if name in self._pieces:
                self._responses[response["id"]] = name
            else:
                await self._cancel(response["id"])
        elif kind == "response.output_audio_transcript.done":
            if (piece := self._piece(message["response_id"])) is not None:
                _compare(piece.text, message["transcript"])
        elif kind == "response.done":
            response = message["response"]
            piece = self._pieces.pop(self._responses.pop(response["id"], ""), None)
            if piece is not None:
                await self._done(piece, response)
        elif kind == "error":
            await self._refused(message["error"])

    def _piece(self, response: str) -> Piece | None:
        return self._pieces.get(self._responses.get(response, ""))

    async def _done(self, piece: Piece, response: dict[str, Any]) -> None:
        status = response.get("status")
        if status == "completed":
            await piece.finish()
            return
        details = response.get("status_details") or {}
        if details.get("error"):
            await piece.fail(error_from_body(self._config, details["error"]))
            return
        reason = details.get("reason") or status
        retryable = reason not in ("content_filter", "max_output_tokens")
        await piece.fail(ProviderError("openai", f"the reading was cut ({reason}).", retryable=retryable))

    async def _refused(self, error: dict[str, Any]) -> None:
        """Most errors concern one message of ours, which they name, and leave the session as it was."""
        refusal = error_from_body(self._config, error)
        piece = self._pieces.pop(error.get("event_id") or "", None)
        if piece is not None:
            await piece.fail(refusal)
        elif error.get("code") != "response_cancel_not_active":  # it had just ended by itself
            self._socket.said = scrub(str(error.get("message") or error.get("code")), self._config.api_key)
            log.warning("openai tts: %s", refusal.message)

    async def lost(self, error: ProviderError) -> None:
        pieces, self._pieces = list(self._pieces.values()), {}
        self._responses.clear()
        for piece in pieces:
            await piece.fail(error)


def _compare(text: str, transcript: str) -> None:
    """Say so if the model did not read what it was given: the call's record then has what nobody heard."""
    wanted, spoken = _words(text), _words(transcript)
    if difflib.SequenceMatcher(None, wanted, spoken, autojunk=False).ratio() < FAITHFUL:
        log.warning("openai tts: a text of %d words was not read word for word", len(wanted))


def _words(text: str) -> list[str]:
    return re.findall(r"\w+", text.lower())

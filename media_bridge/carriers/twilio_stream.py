"""Twilio Media Streams, bidirectional, as the server sees them. Sans-I/O: text in, messages out, and back.

All frames are JSON text, and the numbers in them are strings. Order on a socket: `connected`, `start`, then
`media`, `mark`, `dtmf` in any order, then `stop`. `sequenceNumber` counts all messages of a stream from
`start` = "1"; `connected` has none. Source: Twilio's "Media Streams - WebSocket messages" page.
"""

from __future__ import annotations

import binascii
import dataclasses
import json
import re
from base64 import b64encode
from typing import Any, Final

import orjson

from stayline.errors import StaylineError

MAX_MESSAGE: Final = 64 * 1024
"""Longest message taken, in characters. Twilio's are below 1 kB; the rest is somebody else."""

SAMPLE_RATE: Final = 8000
ENCODING: Final = "audio/x-mulaw"

_PLAIN_ID = re.compile(r"[A-Za-z0-9_-]{1,64}")
"""What a SID may look like: it becomes part of workflow ids and file names."""
_DIGITS_AT_MOST: Final = 15
_DIGITS: Final = frozenset("0123456789*#ABCD")
_a2b = binascii.a2b_base64


class ProtocolError(StaylineError):
    """The peer broke the protocol. The message names the fault and never quotes what was sent."""


# --- what arrives ------------------------------------------------------------------------------------------


@dataclasses.dataclass(frozen=True, slots=True)
class MediaFormat:
    encoding: str = ENCODING
    sample_rate: int = SAMPLE_RATE
    channels: int = 1


@dataclasses.dataclass(frozen=True, slots=True)
class Connected:
    """The socket's first message."""


@dataclasses.dataclass(frozen=True, slots=True)
class Start:
    """The stream begins. `parameters` are those of TwiML's `<Parameter>`: the token is among them."""

    stream_sid: str
    call_sid: str
    account_sid: str
    parameters: dict[str, str]
    media_format: MediaFormat
    sequence: int = 1


@dataclasses.dataclass(slots=True)  # not frozen, which would double its price
class Media:
    """Caller audio, 20 ms as a rule."""

    timestamp_ms: int  #: milliseconds since the stream's start
    chunk: int  #: counts media messages from 1
    sequence: int
    audio: bytes  #: μ-law, 8 bytes a millisecond


@dataclasses.dataclass(frozen=True, slots=True)
class Mark:
    """All audio sent before the mark of that name was played, or was thrown away by a `clear`."""

    name: str
    sequence: int = 0


@dataclasses.dataclass(frozen=True, slots=True)
class DtmfPressed:
    digit: str  #: one of 0-9, *, #, A-D
    sequence: int = 0


@dataclasses.dataclass(frozen=True, slots=True)
class Stop:
    """The call left the stream: the caller hung up, or the call was given other TwiML."""

    sequence: int = 0


@dataclasses.dataclass(frozen=True, slots=True)
class Unknown:
    """An event that this version does not know. To be ignored: carriers add events."""

    event: str
    sequence: int = 0


Message = Connected | Start | Media | Mark | DtmfPressed | Stop | Unknown


def parse(text: str) -> Message:
    """Parse one message.

    Raises:
        ProtocolError: whatever is wrong with it.
    """
    return _message(_load(text))


class StreamProtocol:
    """Parses the messages of one socket and holds them to the order of the protocol.

    Attributes:
        start: the `start` message, once it has come.
        stopped: `stop` has come.
        lost: messages missing from the sequence so far (the carrier's or the network's fault, never fatal).
        out_of_order: messages whose number was not above the one before.
    """

    def __init__(self) -> None:
        self.start: Start | None = None
        self.stopped = False
        self.lost = 0
        self.out_of_order = 0
        self._connected = False
        self._sequence = 0

    def receive(self, text: str) -> Message:
        """Parse the next message of the socket.

        Raises:
            ProtocolError: it is malformed, out of order, or of another stream.
        """
        raw = _load(text)
        message = _message(raw)
        if self.stopped:
            raise ProtocolError("a message came after stop")
        if self.start is None:
            self._before_start(message)
            return message
        if isinstance(message, Connected | Start):
            raise ProtocolError(f"{_name(message)} came twice")
        if raw.get("streamSid") != self.start.stream_sid:
            raise ProtocolError("a message of another stream")
        self._count(message.sequence)
        self.stopped = isinstance(message, Stop)
        return message

    def _before_start(self, message: Message) -> None:
        if isinstance(message, Connected):
            if self._connected:
                raise ProtocolError("connected came twice")
            self._connected = True
        elif isinstance(message, Start):
            if not self._connected:
                raise ProtocolError("start came before connected")
            self.start = message
            self._sequence = message.sequence
        elif not isinstance(message, Unknown):
            raise ProtocolError(f"{_name(message)} came before start")

    def _count(self, sequence: int) -> None:
        if sequence == self._sequence + 1:
            self._sequence = sequence
        elif sequence > self._sequence:
            self.lost += sequence - self._sequence - 1
            self._sequence = sequence
        else:
            self.out_of_order += 1


# --- what is sent ------------------------------------------------------------------------------------------


def media(stream_sid: str, audio: bytes) -> str:
    """Audio to play, μ-law without any header, any length; the carrier buffers and plays in order."""
    payload = b64encode(audio).decode("ascii")
    return f'{{"event":"media","streamSid":"{stream_sid}","media":{{"payload":"{payload}"}}}}'


def mark(stream_sid: str, name: str) -> str:
    """Ask for an echo of `name` when all audio sent so far has been played (or cleared)."""
    return json.dumps({"event": "mark", "streamSid": stream_sid, "mark": {"name": name}}, separators=(",", ":"))


def clear(stream_sid: str) -> str:
    """Throw away what is buffered; the outstanding marks come back at once."""
    return f'{{"event":"clear","streamSid":"{stream_sid}"}}'


# --- parsing -----------------------------------------------------------------------------------------------


def _load(text: str) -> dict[str, Any]:
    if len(text) > MAX_MESSAGE:
        raise ProtocolError(f"a message longer than {MAX_MESSAGE} characters")
    try:
        raw = orjson.loads(text)
    except ValueError:
        raise ProtocolError("not JSON") from None
    if type(raw) is not dict:
        raise ProtocolError("not a JSON object")
    return raw


def _message(raw: dict[str, Any]) -> Message:
    event = raw.get("event")
    if event == "media":
        return _media(raw)
    if event == "mark":
        return Mark(_text(_object(raw, "mark"), "name"), _number(raw, "sequenceNumber"))
    if event == "dtmf":
        digit = _text(_object(raw, "dtmf"), "digit")
        if digit not in _DIGITS:
            raise ProtocolError("dtmf.digit is not a key of a telephone")
        return DtmfPressed(digit, _number(raw, "sequenceNumber"))
    if event == "connected":
        return Connected()
    if event == "start":
        return _start(raw)
    if event == "stop":
        return Stop(_number(raw, "sequenceNumber"))
    if type(event) is not str or not event:
        raise ProtocolError("no event")
    name = _text(raw, "event")[:64]
    return Unknown(name, _number(raw, "sequenceNumber") if "sequenceNumber" in raw else 0)


def _media(raw: dict[str, Any]) -> Media:
    """The hot path: 50 of these a second and call."""
    body = raw.get("media")
    if type(body) is not dict:
        raise ProtocolError("media is missing or not an object")
    if body.get("track", "inbound") != "inbound":
        raise ProtocolError("media of a track that is not the caller's")
    payload = body.get("payload")
    if type(payload) is not str or not payload:
        raise ProtocolError("media.payload is missing or not a string")
    try:
        audio = _a2b(payload, strict_mode=True)
    except ValueError:
        raise ProtocolError("media.payload is not base64") from None
    return Media(_number(body, "timestamp"), _number(body, "chunk"), _number(raw, "sequenceNumber"), audio)


def _start(raw: dict[str, Any]) -> Start:
    body = _object(raw, "start")
    stream_sid = _id(body, "streamSid")
    if raw.get("streamSid", stream_sid) != stream_sid:
        raise ProtocolError("start names two streams")
    parameters = body.get("customParameters", {})
    if type(parameters) is not dict:
        raise ProtocolError("start.customParameters is not an object")
    return Start(
        stream_sid,
        _id(body, "callSid"),
        _id(body, "accountSid"),
        {_encodable(name): _text(parameters, name, allow_empty=True) for name in parameters},
        _media_format(_object(body, "mediaFormat")),
        _number(raw, "sequenceNumber"),
    )


def _media_format(raw: dict[str, Any]) -> MediaFormat:
    rate, channels = raw.get("sampleRate"), raw.get("channels")
    if raw.get("encoding") != ENCODING or type(rate) is not int or type(channels) is not int:
        raise ProtocolError(f"the media format is not {ENCODING}")
    if rate != SAMPLE_RATE or channels != 1:
        raise ProtocolError(f"the media format is not {SAMPLE_RATE} Hz mono")
    return MediaFormat()


def _object(raw: dict[str, Any], key: str) -> dict[str, Any]:
    value = raw.get(key)
    if type(value) is not dict:
        raise ProtocolError(f"{key} is missing or not an object")
    return value


def _number(raw: dict[str, Any], key: str) -> int:
    """Twilio writes numbers as strings of decimal digits."""
    value = raw.get(key)
    if type(value) is not str or len(value) > _DIGITS_AT_MOST or not (value.isdecimal() and value.isascii()):
        raise ProtocolError(f"{key} is missing or not a number in a string")
    return int(value)


def _text(raw: dict[str, Any], key: str, *, allow_empty: bool = False) -> str:
    value = raw.get(key)
    if type(value) is not str or not (value or allow_empty):
        raise ProtocolError(f"{key if key.isidentifier() else 'a value'} is missing or not a string")
    return _encodable(value)


def _encodable(value: str) -> str:
    """Half a surrogate pair is legal in JSON and breaks whoever encodes the text later."""
    try:
        value.encode()
    except UnicodeEncodeError:
        raise ProtocolError("a string with half a surrogate pair") from None
    return value


def _id(raw: dict[str, Any], key: str) -> str:
    value = raw.get(key)
    if type(value) is not str or not _PLAIN_ID.fullmatch(value):
        raise ProtocolError(f"{key} is missing or not an identifier")
    return value


def _name(message: Message) -> str:
    return type(message).__name__.lower()

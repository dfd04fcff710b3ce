"""What a provider is to the bridge: four small protocols, events that mean one thing whoever sends them.

Audio is 8 kHz μ-law, one byte a sample (8 bytes a millisecond), in and out, because the phone line is. An
adapter whose vendor cannot take that transcodes inside itself and says so in its profile. Differences between
vendors are flags on a profile, never a check of a name where the provider is used.

Every adapter is made by `Adapter(ProviderConfig)`, holds no per-call state, is shared by all calls of a process,
and raises only `ProviderError` (and `ConfigError` from its constructor).
"""

from __future__ import annotations

import dataclasses
import json
import math
from collections.abc import AsyncIterator, Mapping, Sequence
from typing import Any, Literal, Protocol, runtime_checkable

from stayline.models import InterruptionMode, Message, ToolCall, ToolMessage, ToolSpec


@dataclasses.dataclass(frozen=True, slots=True)
class ProviderConfig:
    """One configured provider: vendor, model and everything that the adapter needs."""

    provider: str
    model: str
    api_key: str = dataclasses.field(default="", repr=False)
    base_url: str = ""  #: http origin without path; a websocket origin is derived from it (http -> ws)
    voice: str = ""
    language: str = "en"
    options: Mapping[str, Any] = dataclasses.field(default_factory=dict)
    """Checked by the adapter's own options model; an unknown one is a ConfigError."""


class _Words:
    """Base of what brings words: they are text that can be sent and kept, whatever a vendor sends.

    Half a surrogate pair is legal in JSON, and a model's tokens may cut a pair in two; its half is replaced by "?".
    """

    __slots__ = ()
    text: str

    def __post_init__(self) -> None:
        """
        Raises:
            TypeError: it is no text.
        """
        object.__setattr__(self, "text", encodable(self.text))


def encodable(text: str) -> str:
    """
    Raises:
        TypeError: it is no text.
    """
    if not isinstance(text, str):
        raise TypeError(f"{type(text).__name__} instead of text")
    return text if text.isascii() else text.encode("utf-8", "replace").decode()


# --- speech to text --------------------------------------------------------------------------------------


@dataclasses.dataclass(frozen=True, slots=True)
class SttProfile:
    native_mulaw: bool  #: the vendor takes 8 kHz μ-law as it is
    eager_turns: bool = False  #: sends EagerEndOfTurn and TurnResumed


@dataclasses.dataclass(frozen=True, slots=True)
class SpeechStarted:
    """The caller began to make speech-like sound. May prove to be noise."""

    at_ms: int  #: stream position, milliseconds of audio sent so far


@dataclasses.dataclass(frozen=True, slots=True)
class Partial(_Words):
    """What the open turn says so far; replaces earlier partials. Never empty."""

    text: str


@dataclasses.dataclass(frozen=True, slots=True)
class EndOfTurn(_Words):
    """The caller's turn is over. `text` is the whole turn; empty when the speech proved to be noise."""

    text: str
    confidence: float | None = None
    speech_end_ms: int | None = None  #: stream position of the last voiced audio, where known
    speech_ms: int = 0  #: how long the caller spoke, where known

    def __post_init__(self) -> None:
        object.__setattr__(self, "text", encodable(self.text))
        if isinstance(self.confidence, float) and not math.isfinite(self.confidence):
            object.__setattr__(self, "confidence", None)


@dataclasses.dataclass(frozen=True, slots=True)
class EagerEndOfTurn(_Words):
    """The turn is probably over; either TurnResumed or EndOfTurn follows."""

    text: str


@dataclasses.dataclass(frozen=True, slots=True)
class TurnResumed:
    pass


SttEvent = SpeechStarted | Partial | EndOfTurn | EagerEndOfTurn | TurnResumed


@runtime_checkable
class SendsNow(Protocol):
    """An ear, or a realtime session, that sends a frame at once where nothing waits before it: a wait costs more
    than the frame."""

    def send_now(self, audio: bytes) -> bool:
        """Send it in this step. False: it was not sent; `send` it."""


class SttStream(Protocol):
    """One call's ear. Iteration ends when the stream was closed by us; a lost vendor raises ProviderError."""

    async def send(self, audio: bytes) -> None:
        """Feed μ-law audio, any length (20 ms frames in practice). Never blocks on the vendor for long."""

    def __aiter__(self) -> AsyncIterator[SttEvent]: ...

    async def aclose(self) -> None: ...


class SttProvider(Protocol):
    profile: SttProfile

    async def warm(self) -> None:
        """Load or connect what the first call would otherwise wait for."""

    async def connect(self, *, call_id: str) -> SttStream: ...

    async def aclose(self) -> None: ...


# --- language model --------------------------------------------------------------------------------------


@dataclasses.dataclass(frozen=True, slots=True)
class LlmProfile:
    parallel_tools: bool = True


@dataclasses.dataclass(frozen=True, slots=True)
class LlmRequest:
    instructions: str
    messages: Sequence[Message]
    tools: Sequence[ToolSpec]
    call_id: str  #: for finding the call at the vendor; not for the model


@dataclasses.dataclass(frozen=True, slots=True)
class TextDelta(_Words):
    text: str


@dataclasses.dataclass(frozen=True, slots=True)
class ToolCallDelta:
    """A whole tool call; vendors' fragments are put together by the adapter. Arguments that are not a JSON
    object arrive as `{}` with `malformed` set to what the model wrote."""

    call: ToolCall
    malformed: str | None = None

    def __post_init__(self) -> None:
        """A call goes to its workflow as JSON. What cannot (half a surrogate pair, a nest of 255) is malformed."""
        try:
            self.call.model_dump_json()
        except ValueError:
            written = self.malformed or json.dumps(self.call.arguments)
            names = {"id": encodable(self.call.id), "name": encodable(self.call.name), "arguments": {}}
            object.__setattr__(self, "call", self.call.model_copy(update=names))
            object.__setattr__(self, "malformed", written)
        if self.malformed is not None:
            object.__setattr__(self, "malformed", encodable(self.malformed))


@dataclasses.dataclass(frozen=True, slots=True)
class LlmUsage:
    input_tokens: int = 0
    output_tokens: int = 0
    cached_tokens: int = 0

    def __post_init__(self) -> None:
        """
        Raises:
            TypeError: a count is no whole number.
        """
        if any(type(count) is not int for count in (self.input_tokens, self.output_tokens, self.cached_tokens)):
            raise TypeError("a count is no whole number")


LlmEvent = TextDelta | ToolCallDelta | LlmUsage


class LlmProvider(Protocol):
    profile: LlmProfile

    async def warm(self) -> None: ...

    def stream(self, request: LlmRequest) -> AsyncIterator[LlmEvent]:
        """Stream one reply. Closing the iterator (or cancelling) closes the vendor's connection at once."""

    async def aclose(self) -> None: ...


# --- text to speech --------------------------------------------------------------------------------------


@dataclasses.dataclass(frozen=True, slots=True)
class TtsProfile:
    native_mulaw: bool


@dataclasses.dataclass(frozen=True, slots=True)
class SpeechChunk:
    """Audio of an utterance, in order.

    `chars`: how many characters of the text sent so far are spoken when this chunk has been played, where the
    vendor tells; None between such points (the bridge interpolates).
    """

    audio: bytes
    chars: int | None = None


class Utterance(Protocol):
    """One stretch of agent speech: text goes in clause by clause while audio comes out."""

    async def send(self, text: str) -> None:
        """Add a clause, spaces and punctuation as they are to be counted in `SpeechChunk.chars`."""

    async def finish(self) -> None:
        """No more text. Iteration ends after the last audio."""

    def __aiter__(self) -> AsyncIterator[SpeechChunk]: ...

    async def cancel(self) -> None:
        """Stop now; nothing more is yielded. Safe to call twice, and after the end."""


class TtsSession(Protocol):
    """One call's voice: keeps a warm connection between utterances and reconnects by itself."""

    async def utterance(self) -> Utterance: ...

    async def aclose(self) -> None: ...


class TtsProvider(Protocol):
    profile: TtsProfile

    async def warm(self) -> None: ...

    async def connect(self, *, call_id: str) -> TtsSession: ...

    async def aclose(self) -> None: ...


# --- realtime: voice to voice ----------------------------------------------------------------------------


@dataclasses.dataclass(frozen=True, slots=True)
class RealtimeProfile:
    native_mulaw: bool  #: the vendor takes and gives 8 kHz μ-law as it is
    can_truncate: bool  #: its memory of a reply can be cut to what was heard
    can_cancel: bool  #: a response under way can be stopped by us
    server_turns: bool = True  #: it tells when the caller begins and ceases to speak
    manual_responses: bool = False  #: it can be told to answer only when asked (`RealtimeSession.respond`)
    speaks_during_tools: bool = False  #: `say` works while a tool call waits for its result
    can_resume: bool = False  #: a new connection can take up the old one's conversation by a handle
    session_seconds: float | None = None  #: the vendor ends a connection after this long


@dataclasses.dataclass(frozen=True, slots=True)
class RealtimeRequest:
    """What a session begins with.

    Attributes:
        messages: the conversation so far; to be known to the model, not answered by itself.
        interruption: `immediate`: the vendor stops its response by itself when the caller speaks, and answers each
            turn of the caller by itself. Otherwise it does neither stop nor (where it can be told so) answer by
            itself: the bridge asks with `respond`.
        resume: handle of a former connection (`RealtimeSession.handle`); empty: a new session. With it `messages`
            are not sent again.
    """

    instructions: str
    messages: Sequence[Message]
    tools: Sequence[ToolSpec]
    call_id: str  #: for finding the call at the vendor; not for the model
    interruption: InterruptionMode = "immediate"
    resume: str = ""


@dataclasses.dataclass(frozen=True, slots=True)
class SpeechStopped:
    """The caller ceased to speak; the turn is over for the vendor."""

    at_ms: int  #: stream position of the end of the speech


@dataclasses.dataclass(frozen=True, slots=True)
class CallerTranscript(_Words):
    """The words of one turn of the caller. May come when the response to it is already heard.

    `text` empty: it was a noise, or could not be written down (`failed`).
    """

    text: str
    failed: bool = False


@dataclasses.dataclass(frozen=True, slots=True)
class ResponseStarted:
    """The model begins to answer. Ids are unique within a session."""

    response: str
    by_itself: bool = False  #: known to be no answer to `say`, `respond` or `tool_result`


@dataclasses.dataclass(frozen=True, slots=True)
class ResponseAudio:
    """Speech, in order, usually faster than it is spoken. 8 kHz μ-law."""

    response: str
    audio: bytes


@dataclasses.dataclass(frozen=True, slots=True)
class ResponseText(_Words):
    """What the response's speech says, piece by piece."""

    response: str
    text: str


@dataclasses.dataclass(frozen=True, slots=True)
class ResponseDone:
    """Nothing more comes of this response. `cancelled`: by us, or by the vendor because the caller spoke."""

    response: str
    status: Literal["completed", "cancelled", "failed"] = "completed"
    error: str = ""


@dataclasses.dataclass(frozen=True, slots=True)
class ToolCancelled:
    """The model no longer waits for these tools (their work goes on; results are for the record only)."""

    ids: tuple[str, ...]


@dataclasses.dataclass(frozen=True, slots=True)
class Expiring:
    """The vendor will end this connection soon."""

    seconds: float


RealtimeEvent = (
    SpeechStarted
    | SpeechStopped
    | Partial
    | CallerTranscript
    | ResponseStarted
    | ResponseAudio
    | ResponseText
    | ResponseDone
    | ToolCallDelta
    | ToolCancelled
    | LlmUsage
    | Expiring
)


class RealtimeSession(Protocol):
    """One connection to a voice-to-voice model. Iteration ends when we closed it; a lost vendor raises
    ProviderError, also from the other methods. What a vendor cannot do (see the profile) does nothing."""

    @property
    def handle(self) -> str:
        """For `RealtimeRequest.resume`; empty while there is none. The old connection must be closed first."""

    async def send(self, audio: bytes) -> None:
        """Feed the caller's μ-law audio, any length. Never blocks on the vendor for long."""

    async def say(self, text: str) -> None:
        """Have the model speak exactly this text now: a greeting, a goodbye. As close as the vendor gets to it."""

    async def respond(self) -> None:
        """Have the model answer now what it has heard and been told. Nothing if it is answering already."""

    async def note(self, text: str) -> None:
        """Tell the model a fact that nobody said. It does not answer by itself."""

    async def tool_result(self, result: ToolMessage, *, respond: bool) -> None:
        """Answer a tool call. `respond`: it was the last one open, the model goes on speaking."""

    async def cancel(self) -> None:
        """Stop the response under way; `ResponseDone` follows."""

    async def truncate(self, response: str, heard_ms: int) -> None:
        """Have the model remember of a response only what was heard: milliseconds of its audio."""

    def __aiter__(self) -> AsyncIterator[RealtimeEvent]: ...

    async def aclose(self) -> None: ...


class RealtimeProvider(Protocol):
    profile: RealtimeProfile

    async def warm(self) -> None: ...

    async def connect(self, request: RealtimeRequest) -> RealtimeSession:
        """Connect and configure; returns when the vendor has accepted the configuration."""

    async def aclose(self) -> None: ...

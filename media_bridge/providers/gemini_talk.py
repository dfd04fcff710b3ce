"""One Gemini Live session as it goes on: what its messages mean, and what is sent when. No I/O, no clock.

Gemini has turns, but no ids: a response here is what the model says until it has generated all of it, was
interrupted, or asked for a tool. `generationComplete` comes when all is generated, `turnComplete` when Gemini
thinks that it has been played; an interruption in between is one of the playing only.
"""

from __future__ import annotations

import base64
import json
import logging
import re
from collections import deque
from collections.abc import Mapping
from typing import Any, Final, Literal

from media_bridge.audio.pcm import PcmToMulaw
from media_bridge.providers import gemini_messages as to_send
from media_bridge.providers.base import (
    Expiring,
    LlmUsage,
    RealtimeEvent,
    ResponseAudio,
    ResponseDone,
    ResponseStarted,
    ResponseText,
    ToolCallDelta,
    ToolCancelled,
)
from media_bridge.providers.gemini_caller import Caller
from stayline.models import ToolCall, ToolMessage

log = logging.getLogger(__name__)

OUTPUT_RATE: Final = 24_000
"""Unless the sound's own type says otherwise."""
FORGOTTEN: Final = 64
"""Cancelled tool calls that are remembered, so that their late results are not sent."""

_RATE: Final = re.compile(r"rate=(\d{1,9})")
_SECONDS: Final = re.compile(r"(\d+(?:\.\d+)?)s")
_FAILED: Final = re.compile("MALFORMED|REJECTED|PROHIBITED|SAFETY|BLOCKLIST|INPUT_OTHER")
"""Reasons for the end of a turn that leave the caller without an answer (google.genai.types.TurnCompleteReason)."""

Asked = Literal["say", "respond", "tool"]


class Talk:
    """Takes Gemini's messages and the caller's sound and returns events; collects in `outbox` what is to be sent.

    Args:
        blocking: the model waits for its tools.
    """

    def __init__(self, *, blocking: bool) -> None:
        self.outbox: deque[str] = deque()
        self.ready = False  #: the configuration is accepted
        self.handle = ""  #: of the conversation as it is; "" when it has gone on since the last one came
        self._blocking = blocking
        self._caller = Caller()
        self._numbers = 0
        self._active = ""  #: id of the response under way
        self._last = ""  #: id of the last one
        self._sound: PcmToMulaw | None = None
        self._rate = 0
        self._turn_open = False  #: the model's; from its first sign of life to `turnComplete`
        self._spent = False  #: no more sound is made in it
        self._asked: Asked | None = None  #: an answer that has not begun
        self._asked_within = False  #: when the turn before was still open: that one's end is not the answer's
        self._interrupted = False  #: the open turn was
        self._notes: list[dict[str, Any]] = []  #: to be told when they interrupt nothing
        self._forgotten: deque[str] = deque(maxlen=FORGOTTEN)

    # --- what is wanted of it --------------------------------------------------------------------------------

    def say(self, text: str) -> None:
        self._ask("say", [*self._told(), to_send.say(text)])

    def respond(self) -> None:
        if not (self._active or self._asked):
            self._ask("respond", self._told() or [to_send.go_on()])

    def note(self, text: str) -> None:
        self._notes.append(to_send.note(text))
        self._tell()

    def tool_result(self, result: ToolMessage, *, respond: bool) -> None:
        if result.tool_call_id in self._forgotten:
            return
        self.handle = ""
        scheduling: Literal["WHEN_IDLE", "SILENT"] | None = "WHEN_IDLE" if respond else "SILENT"
        self.outbox.append(to_send.tool_response(result, scheduling=None if self._blocking else scheduling))
        if respond:
            self._asked = self._asked or "tool"

    def _ask(self, what: Asked, turns: list[dict[str, Any]]) -> None:
        self.handle = ""
        self._asked, self._asked_within = what, self._turn_open
        self.outbox.append(to_send.content(turns, answer=True))

    def _tell(self) -> None:
        """Content of ours stops whatever the model is saying, so it waits until that is over."""
        if self._notes and not (self._turn_open or self._asked):
            self.handle = ""
            self.outbox.append(to_send.content(self._told(), answer=False))

    def _told(self) -> list[dict[str, Any]]:
        notes, self._notes = self._notes, []
        return notes

    # --- what it hears and says ------------------------------------------------------------------------------

    def hear(self, frame: bytes) -> list[RealtimeEvent]:
        """The caller's next sound, which is sent by the shell."""
        return self._caller.hear(frame)

    def handle_message(self, message: Mapping[str, Any]) -> list[RealtimeEvent]:
        """Take one message; it may carry several things. What is not known is ignored."""
        self.ready = self.ready or "setupComplete" in message
        if (update := message.get("sessionResumptionUpdate")) is not None:
            # Not resumable: the model is at work, and what it does would be lost to a new connection.
            self.handle = str(update.get("newHandle") or "") if update.get("resumable") else ""
        events = self._voice(message.get("voiceActivity") or {})
        if cancelled := (message.get("toolCallCancellation") or {}).get("ids"):
            ids = tuple(map(str, cancelled))
            self._forgotten += ids
            events.append(ToolCancelled(ids))
        spoken = message.get("serverContent") or {}
        events += self._speech(spoken)
        if calls := (message.get("toolCall") or {}).get("functionCalls"):
            events += self._tools(calls)
        events += self._ends(spoken)
        events += _usage(message.get("usageMetadata") or {})
        if going := message.get("goAway"):
            events.append(Expiring(_seconds(going.get("timeLeft"))))
        return events

    def lost(self) -> list[RealtimeEvent]:
        """The connection is: what is still to be told."""
        return self._caller.is_lost()

    def _voice(self, activity: Mapping[str, Any]) -> list[RealtimeEvent]:
        match activity.get("voiceActivityType"):
            case "ACTIVITY_START":
                return self._caller.begins()
            case "ACTIVITY_END":
                return self._caller.ceases()
        return []

    def _speech(self, spoken: Mapping[str, Any]) -> list[RealtimeEvent]:
        """Words of the caller, an interruption, words and sound of the model."""
        events: list[RealtimeEvent] = []
        if interim := spoken.get("interimInputTranscription"):
            events += self._caller.says(interim.get("text") or "", finished=False, interim=True)
        if heard := spoken.get("inputTranscription"):
            events += self._caller.says(heard.get("text") or "", finished=bool(heard.get("finished")))
        if spoken.get("interrupted"):
            events += self._is_interrupted()
        if text := (spoken.get("outputTranscription") or {}).get("text"):
            if not self._spent:  # else it comes late, and still is of the last response
                self._begin(events)
            events.append(ResponseText(self._last, text))
        self._turn_open = self._turn_open or "modelTurn" in spoken  # thoughts too: it is at work
        for part in (spoken.get("modelTurn") or {}).get("parts") or []:
            sound = part.get("inlineData") or {}
            if str(sound.get("mimeType")).startswith("audio/pcm"):
                self._begin(events)
                self._add(self._heard_of(sound), events)
        return events

    def _is_interrupted(self) -> list[RealtimeEvent]:
        by_us = self._asked is not None and self._asked_within
        events = [] if by_us else self._caller.interrupts()
        self._interrupted = self._spent = True
        if self._asked and not by_us and not self._active:  # before there was anything of it
            self._number(events)
        if self._active:
            events.append(self._done("cancelled"))
        return events

    def _ends(self, spoken: Mapping[str, Any]) -> list[RealtimeEvent]:
        events: list[RealtimeEvent] = []
        reason = str(spoken.get("turnCompleteReason") or "")
        if spoken.get("generationComplete") or (spoken.get("turnComplete") and self._active):
            self._spent = self._spent or bool(self._active)
            self._finish(events)
        if spoken.get("turnComplete"):
            empty = self._asked in ("say", "respond") and not (self._asked_within or self._interrupted)
            if empty or _FAILED.search(reason):
                self._begin(events)
                events.append(self._done("failed", reason or "the model said nothing"))
            events += self._caller.is_over()
            self._turn_open = self._spent = self._interrupted = self._asked_within = False
            self._tell()
        return events

    def _tools(self, calls: list[Mapping[str, Any]]) -> list[RealtimeEvent]:
        """A tool call ends a response: some models say nothing more until they have the result."""
        events: list[RealtimeEvent] = []
        self._begin(events)
        for call in calls:
            given = call.get("args")
            well = given is None or isinstance(given, dict)
            wanted = ToolCall(
                id=str(call.get("id") or f"{self._active}-{len(events)}"),
                name=str(call.get("name") or ""),
                arguments=(given or {}) if well else {},
            )
            events.append(ToolCallDelta(wanted, None if well else json.dumps(given)))
        self.handle = ""
        self._finish(events)
        return events

    # --- responses -------------------------------------------------------------------------------------------

    def _begin(self, events: list[RealtimeEvent]) -> None:
        """A response, if none is under way."""
        self._turn_open = True
        if self._active:
            return
        events += self._caller.is_answered(asked=self._asked is not None)
        self._spent = self._interrupted = False
        self._number(events)

    def _number(self, events: list[RealtimeEvent]) -> None:
        self.handle = ""
        self._numbers += 1
        self._active = self._last = f"r{self._numbers}"
        events.append(ResponseStarted(self._active, by_itself=self._asked is None))
        self._asked = None

    def _finish(self, events: list[RealtimeEvent]) -> None:
        if self._active:
            if self._sound is not None:
                self._add(self._sound.flush(), events)
            events.append(self._done("completed"))
        events += self._caller.is_over()

    def _done(self, status: Literal["completed", "cancelled", "failed"], error: str = "") -> ResponseDone:
        response, self._active, self._sound = self._active, "", None
        return ResponseDone(response, status, error)

    def _add(self, audio: bytes, events: list[RealtimeEvent]) -> None:
        if audio:
            events.append(ResponseAudio(self._active, audio))

    def _heard_of(self, sound: Mapping[str, Any]) -> bytes:
        rate = _RATE.search(sound["mimeType"])
        hertz = int(rate[1]) if rate and 4000 <= int(rate[1]) <= 96_000 else OUTPUT_RATE
        rest = b""
        if self._sound is None or hertz != self._rate:
            rest = self._sound.flush() if self._sound is not None else b""
            self._sound, self._rate = PcmToMulaw(hertz), hertz
        try:
            return rest + self._sound.push(base64.b64decode(sound.get("data") or ""))
        except ValueError:  # not base64
            return rest


def _usage(counts: Mapping[str, Any]) -> list[RealtimeEvent]:
    """Tokens of one turn. Thoughts are output, and are counted beside the response."""
    usage = LlmUsage(
        input_tokens=counts.get("promptTokenCount", 0) + counts.get("toolUsePromptTokenCount", 0),
        output_tokens=counts.get("responseTokenCount", 0) + counts.get("thoughtsTokenCount", 0),
        cached_tokens=counts.get("cachedContentTokenCount", 0),
    )
    return [usage] if usage != LlmUsage() else []


def _seconds(duration: object) -> float:
    """A protobuf duration: "50s", "2.5s"."""
    found = _SECONDS.fullmatch(str(duration))
    return float(found[1]) if found else 0.0

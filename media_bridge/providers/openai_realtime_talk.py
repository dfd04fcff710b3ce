"""One OpenAI Realtime session as it goes on: what its messages mean, and what is sent when. No I/O, no clock.

OpenAI makes one response at a time and refuses a second. So what we ask for waits here until the response under way
has ended; and what OpenAI refuses, because it had begun to answer by itself, is asked again or given back then.
"""

from __future__ import annotations

import base64
import dataclasses
import json
import logging
from collections import deque
from collections.abc import Callable, Mapping
from typing import Any, Final, Literal

from media_bridge.audio.mulaw import bytes_to_ms
from media_bridge.providers.base import (
    LlmUsage,
    RealtimeEvent,
    ResponseAudio,
    ResponseDone,
    ResponseStarted,
    ResponseText,
    SpeechStopped,
    ToolCallDelta,
)
from media_bridge.providers.llm_http import tool_arguments
from media_bridge.providers.openai_realtime_messages import SAY, create, note, tool_output
from media_bridge.providers.openai_realtime_turns import CallerTurns
from stayline.models import ToolCall, ToolMessage

log = logging.getLogger(__name__)

FATAL: Final = frozenset({"session_expired", "insufficient_quota", "invalid_api_key"})
"""Error codes after which this session is of no use. All others leave it as it was."""
BUSY: Final = "conversation_already_has_active_response"
NOT_ACTIVE: Final = "response_cancel_not_active"
KEPT: Final = 16
"""Responses whose items are remembered, to be cut: only the last ones are still being played."""


class SessionFailed(Exception):
    """OpenAI ends the session; `body` is its error object."""

    def __init__(self, body: Mapping[str, Any]) -> None:
        super().__init__(str(body.get("code")))
        self.body = body


@dataclasses.dataclass(slots=True)
class _Ask:
    """A response that we want."""

    id: str
    kind: Literal["say", "respond", "tools"]
    response: dict[str, Any]
    cancelled: bool = False


@dataclasses.dataclass(slots=True)
class _Response:
    items: dict[str, int] = dataclasses.field(default_factory=dict)  #: bytes of audio by item, in order
    talking: str = ""  #: the item whose words came last
    called: bool = False
    cancelled: bool = False  #: by us; it is not over yet
    unwanted: bool = False  #: what still comes of it is for nobody


class Talk:
    """Takes OpenAI's messages and returns events; collects in `outbox` what is to be sent.

    Args:
        turns: what the caller says.
        answers: OpenAI answers each turn of the caller by itself.
        clean: makes an error text fit to be shown.
    """

    def __init__(self, call_id: str, turns: CallerTurns, *, answers: bool, clean: Callable[[str], str]) -> None:
        self.outbox: deque[str] = deque()
        self._call_id = call_id
        self._turns = turns
        self._answers = answers
        self._clean = clean
        self._numbers = 0
        self._asks: deque[_Ask] = deque()  #: not sent yet
        self._asked: _Ask | None = None  #: sent; OpenAI has neither begun nor refused it
        self._refused: _Ask | None = None  #: waits for the end of the response that was in its way
        self._active = ""  #: id of the response under way
        self._answer_due = False  #: OpenAI will answer the caller's last turn by itself
        self._responses: dict[str, _Response] = {}

    # --- what is wanted of it --------------------------------------------------------------------------------

    def say(self, text: str) -> None:
        # Without the conversation (`input` empty) nothing tempts the model to answer it instead.
        self._ask("say", {"input": [], "instructions": SAY + text, "tool_choice": "none"})

    def respond(self) -> None:
        answering = self._active and not self._responses[self._active].cancelled
        if not (answering or self._asked or self._asks):
            self._ask("respond", {})

    def note(self, text: str) -> None:
        self.outbox.append(create(note(text)))

    def tool_result(self, result: ToolMessage, *, respond: bool) -> None:
        self.outbox.append(create(tool_output(result)))
        if respond:
            self._ask("tools", {})

    def cancel(self) -> None:
        if self._active:
            self._stop(self._active)
        elif self._asked is not None:
            self._asked.cancelled = True

    def truncate(self, response: str, heard_ms: int) -> None:
        """Cut the item in which `heard_ms` of the response's audio end; delete those of which nothing was heard."""
        known = self._responses.get(response)
        if known is None:
            return
        known.unwanted = True
        left, cut = heard_ms, False
        for item, size in known.items.items():
            length = bytes_to_ms(size)
            if length and left >= length and not cut:
                left -= length
                continue
            if not cut and left > 0:
                self._put("conversation.item.truncate", item_id=item, content_index=0, audio_end_ms=left)
            else:
                self._put("conversation.item.delete", item_id=item)
            cut = True

    def _ask(self, kind: Literal["say", "respond", "tools"], response: dict[str, Any]) -> None:
        self._numbers += 1
        name = f"ask_{self._numbers}"
        response["metadata"] = {"call_id": self._call_id, "ask": name}  # comes back with `response.created`
        self._asks.append(_Ask(name, kind, response))
        self._send_next()

    def _send_next(self) -> None:
        if self._asks and not self._active and self._asked is None:
            self._asked = self._asks.popleft()
            self._put("response.create", event_id=self._asked.id, response=self._asked.response)

    def _stop(self, response: str) -> None:
        known = self._responses[response]
        known.unwanted = True
        if not known.cancelled:
            known.cancelled = True
            self._put("response.cancel", response_id=response)

    def _put(self, kind: str, **fields: Any) -> None:
        self.outbox.append(json.dumps({"type": kind, **fields}))

    # --- what it says ----------------------------------------------------------------------------------------

    def handle(self, message: Mapping[str, Any]) -> list[RealtimeEvent]:
        """Take one message; those of a type that does not matter here are ignored.

        Raises:
            SessionFailed: the session is over.
            KeyError, TypeError, ValueError, AttributeError: it is not as documented.
        """
        match message["type"]:
            case "response.output_audio.delta":
                return self._audio(message)
            case "response.output_audio_transcript.delta" | "response.output_text.delta":
                return self._text(message)
            case "response.created":
                return self._created(message["response"])
            case "response.output_item.done":
                return self._item_done(str(message["response_id"]), message["item"])
            case "response.done":
                return self._done(message["response"])
            case "error":
                return self._error(message["error"])
            case _:
                return self._caller(message)

    def _audio(self, message: Mapping[str, Any]) -> list[RealtimeEvent]:
        name, item = str(message["response_id"]), str(message["item_id"])
        audio = base64.b64decode(message["delta"])
        response = self._responses[name]
        response.items[item] = response.items.get(item, 0) + len(audio)
        return [ResponseAudio(name, audio)] if audio and not response.unwanted else []

    def _text(self, message: Mapping[str, Any]) -> list[RealtimeEvent]:
        name, item, text = str(message["response_id"]), str(message["item_id"]), str(message["delta"])
        response = self._responses[name]
        response.items.setdefault(item, 0)
        if response.talking and response.talking != item:
            text = " " + text  # a response may hold two messages (commentary, answer) with nothing between
        response.talking = item
        return [ResponseText(name, text)] if text and not response.unwanted else []

    def _created(self, response: Mapping[str, Any]) -> list[RealtimeEvent]:
        name = str(response["id"])
        asked, label = self._asked, (response.get("metadata") or {}).get("ask")
        self._active = name
        self._responses[name] = _Response()
        if len(self._responses) > KEPT:
            del self._responses[next(iter(self._responses))]
        if asked is not None and (label == asked.id or (label is None and not self._answer_due)):
            self._asked = None
            if asked.cancelled:
                self._stop(name)
            return [ResponseStarted(name)]
        self._answer_due = False
        return [ResponseStarted(name, by_itself=True)]

    def _item_done(self, response: str, item: Mapping[str, Any]) -> list[RealtimeEvent]:
        # The arguments of a call that was cut off in the middle are half a JSON.
        if item["type"] != "function_call" or item.get("status") not in ("completed", None):
            return []
        if response in self._responses:
            self._responses[response].called = True
        arguments, malformed = tool_arguments(str(item["arguments"]))
        call = ToolCall(id=str(item["call_id"]), name=str(item["name"]), arguments=arguments)
        return [ToolCallDelta(call, malformed)]

    def _done(self, response: Mapping[str, Any]) -> list[RealtimeEvent]:
        name = str(response["id"])
        if self._active == name:
            self._active = ""
        known = self._responses.get(name) or _Response()
        details = response.get("status_details") or {}
        events: list[RealtimeEvent] = []
        if usage := response.get("usage"):
            cached = (usage.get("input_token_details") or {}).get("cached_tokens")
            events.append(LlmUsage(usage.get("input_tokens") or 0, usage.get("output_tokens") or 0, cached or 0))
        reason = str(details.get("reason") or "incomplete")
        match response["status"]:
            case "completed":
                events.append(ResponseDone(name))
            case "cancelled":
                events.append(ResponseDone(name, "cancelled"))
            case "incomplete" if reason == "max_output_tokens" and (known.items or known.called):
                events.append(ResponseDone(name))  # a short reply
            case "incomplete":
                events.append(ResponseDone(name, "failed", f"the reply was cut ({reason})"))
            case _:
                error = details.get("error") or {}
                if error.get("code") in FATAL:
                    raise SessionFailed(error)
                said = error.get("message") or error.get("code") or "the response failed"
                events.append(ResponseDone(name, "failed", self._clean(str(said))))
        events += self._after_refusal()
        self._send_next()
        return events

    def _after_refusal(self) -> list[RealtimeEvent]:
        """What was in the way has ended. Words to be said are given back: the caller may be speaking meanwhile."""
        refused, self._refused = self._refused, None
        if refused is None:
            return []
        if refused.kind == "say":
            return [ResponseStarted(refused.id), ResponseDone(refused.id, "cancelled")]
        if not (self._turns.speaking or self._answer_due):  # else the answer to the caller has the results too
            self._asks.appendleft(refused)
        return []

    def _caller(self, message: Mapping[str, Any]) -> list[RealtimeEvent]:
        events = self._turns.handle(message)
        if any(isinstance(event, SpeechStopped) for event in events):
            self._answer_due = self._answers
        return events

    # --- errors ----------------------------------------------------------------------------------------------

    def _error(self, error: Mapping[str, Any]) -> list[RealtimeEvent]:
        code, said = error.get("code"), self._clean(str(error.get("message") or error.get("code")))
        if code in FATAL:
            raise SessionFailed(error)
        asked = self._asked
        of_ask = asked is not None and (error.get("event_id") or (asked.id if code == BUSY else None)) == asked.id
        if asked is None or not of_ask:
            # Among them harmless ones: a cancel came too late, a cut was beyond the end (OpenAI then cuts there).
            log.log(logging.DEBUG if code == NOT_ACTIVE else logging.WARNING, "openai realtime: %s", said)
            return []
        self._asked = None
        if code == BUSY and self._active:
            if asked.kind != "respond":  # which has what it wanted
                self._refused = asked
            return []
        self._send_next()
        return [ResponseStarted(asked.id), ResponseDone(asked.id, "failed", said)]

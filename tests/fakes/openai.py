"""OpenAI on the wire: `/v1/responses`, `/v1/chat/completions`, `/v1/models`; as strict as OpenAI.

    async with FakeOpenAI(lambda request: [Say("Hello!"), Call("book", {"day": "Friday"})]) as fake:
        OpenAILlm(ProviderConfig("openai", "gpt-6-luna", api_key=fake.key, base_url=fake.url))

`FakeOpenAI(local=True)` is a model server of somebody's own: no key, and a prompt template that wants one system
message and alternating roles.
"""

from __future__ import annotations

import json
import re
from collections.abc import Awaitable, Callable, Sequence
from typing import Any

from aiohttp import web

from tests.fakes.llm import Call, Ending, FakeLlm, Part, Reply, Say, SseEvent, Tokens, Wait, fragments, words
from tests.fakes.misbehaviour import refuse
from tests.fakes.openai_files import Files
from tests.fakes.openai_heard import Script
from tests.fakes.openai_transcription import Hearing

RESPONSES_KEYS = {
    "model",
    "input",
    "instructions",
    "tools",
    "tool_choice",
    "stream",
    "store",
    "metadata",
    "safety_identifier",
    "prompt_cache_key",
    "reasoning",
    "text",
    "max_output_tokens",
    "temperature",
    "service_tier",
    "parallel_tool_calls",
}
CHAT_KEYS = {
    "model",
    "messages",
    "tools",
    "tool_choice",
    "stream",
    "stream_options",
    "safety_identifier",
    "prompt_cache_key",
    "reasoning_effort",
    "verbosity",
    "max_completion_tokens",
    "max_tokens",
    "temperature",
    "service_tier",
    "parallel_tool_calls",
}
TOOL_NAME = re.compile(r"^[a-zA-Z0-9_-]{1,64}$")

Realtime = Callable[["FakeOpenAI", web.Request], Awaitable[web.StreamResponse]]
"""Serves one websocket at `/v1/realtime`, from its handshake on; each kind of session has one of its own. The same
for a request to a route that only some tests need."""


class FakeOpenAI(FakeLlm):
    def __init__(
        self,
        reply: Reply | None = None,
        *,
        key: str = "test-key",
        local: bool = False,
        unknown_models: Sequence[str] = (),
        realtime: Realtime | None = None,
        speech: Realtime | None = None,
    ) -> None:
        super().__init__(reply, key=key)
        self.local = local
        self.realtime = realtime
        self.speech = speech
        script = Script()
        self.hears = script.lines  #: what the caller is heard to say, turn by turn
        self.hearing = Hearing(self, script)
        self.files = Files(self, script)
        self.unknown_models = set(unknown_models)

    def routes(self) -> list[web.RouteDef]:
        return [
            web.post("/v1/responses", self._responses),
            web.post("/v1/chat/completions", self._chat),
            web.get("/v1/models", self._models),
            web.get("/v1/models/{model}", self._models),
            web.get("/v1/realtime", self._realtime),
            web.post("/v1/audio/speech", self._speech),
            web.post("/v1/audio/transcriptions", self.files.transcriptions),
        ]

    def error_response(self, status: int, headers: dict[str, str]) -> web.Response:
        texts = {
            401: ("invalid_request_error", "invalid_api_key", "Incorrect API key provided."),
            429: ("requests", "rate_limit_exceeded", "Rate limit reached for requests."),
        }
        kind, code, message = texts.get(status, ("server_error", "server_error", "The server had an error."))
        return self._error(status, message, code, kind=kind, headers=headers)

    def echo(self, body: dict[str, Any]) -> Sequence[Part]:
        return [Say(f"You said: {last_user_text(body)}")]

    def _error(
        self,
        status: int,
        message: str,
        code: str | None,
        *,
        param: str | None = None,
        kind: str = "invalid_request_error",
        headers: dict[str, str] | None = None,
    ) -> web.Response:
        body = {"error": {"message": message, "type": kind, "param": param, "code": code}}
        return web.json_response(body, status=status, headers=headers)

    def _bad(self, message: str, code: str | None = None, param: str | None = None) -> None:
        refuse(self._error(400, message, code, param=param))

    def _check_key(self, request: web.Request) -> None:
        given = request.headers.get("Authorization", "")
        if self.local or given == f"Bearer {self.key}":
            return
        shown = given.removeprefix("Bearer ")
        refuse(self._error(401, f"Incorrect API key provided: {shown}.", "invalid_api_key"))

    def _check_model(self, model: object) -> None:
        if not isinstance(model, str):
            self._bad("Missing required parameter: 'model'.", "missing_required_parameter", "model")
        if model in self.unknown_models:
            message = f"The model '{model}' does not exist or you do not have access to it."
            refuse(self._error(404, message, "model_not_found"))

    async def _models(self, request: web.Request) -> web.StreamResponse:
        await self.begin(request)
        self._check_key(request)
        model = request.match_info.get("model")
        if model is None:
            return web.json_response({"object": "list", "data": []})
        self._check_model(model)
        return web.json_response({"id": model, "object": "model", "created": 1, "owned_by": "openai"})

    async def _realtime(self, request: web.Request) -> web.StreamResponse:
        if request.query.get("intent") == "transcription":
            return await self.hearing.live(request)
        if self.realtime is None:
            raise web.HTTPNotFound
        return await self.realtime(self, request)

    async def _speech(self, request: web.Request) -> web.StreamResponse:
        if self.speech is None:
            raise web.HTTPNotFound
        return await self.speech(self, request)

    # --- /v1/responses -----------------------------------------------------------------------------------

    async def _responses(self, request: web.Request) -> web.StreamResponse:
        recorded, fault = await self.begin(request)
        self._check_key(request)
        body: dict[str, Any] = json.loads(recorded.body)
        self._check_common(body, RESPONSES_KEYS)
        self._check_items(body.get("input"))
        for index, tool in enumerate(body.get("tools", [])):
            if tool.get("type") != "function" or "name" not in tool:
                where = f"tools[{index}].name"
                self._bad(f"Missing required parameter: '{where}'.", "missing_required_parameter", where)
            self._check_function(tool, f"tools[{index}]")
        effort = body.get("reasoning", {}).get("effort")
        self._check_reasoning(body, effort, "reasoning.effort")
        for key, value in body.get("metadata", {}).items():
            if not isinstance(value, str) or len(value) > 512 or len(key) > 64:
                self._bad(f"Invalid type for 'metadata.{key}'.", "invalid_type", f"metadata.{key}")
        self.answered.append(body)
        error: SseEvent = (
            "error",
            {"type": "error", "code": "server_error", "message": "The model broke.", "param": None},
        )
        return await self.send_events(request, self._response_events(body), fault, error)

    def _check_items(self, items: object) -> None:
        if not isinstance(items, list) or not items:
            self._bad("Missing required parameter: 'input'.", "missing_required_parameter", "input")
        assert isinstance(items, list)
        calls: dict[str, bool] = {}  # call_id -> answered
        for index, item in enumerate(items):
            where = f"input[{index}]"
            match item.get("type", "message"):
                case "message":
                    if item.get("role") not in ("user", "assistant", "system", "developer"):
                        self._bad(f"Invalid value: '{item.get('role')}'.", "invalid_value", f"{where}.role")
                    if not isinstance(item.get("content"), str) or not item["content"]:
                        self._bad(f"Invalid '{where}.content'.", "invalid_type", f"{where}.content")
                    extra = set(item) - {"type", "role", "content"}
                case "function_call":
                    if not 1 <= len(item.get("call_id", "")) <= 64:
                        message = f"Invalid '{where}.call_id': string too long. Expected maximum length 64."
                        self._bad(message, "string_above_max_length", f"{where}.call_id")
                    if not isinstance(item.get("arguments"), str) or not TOOL_NAME.match(item.get("name", "")):
                        self._bad(f"Invalid '{where}'.", "invalid_type", where)
                    if item["call_id"] in calls:
                        self._bad(f"Duplicate call_id '{item['call_id']}'.", "invalid_value", where)
                    calls[item["call_id"]] = False
                    extra = set(item) - {"type", "call_id", "name", "arguments"}
                case "function_call_output":
                    if item.get("call_id") not in calls:
                        self._bad(
                            f"No tool call found for function call output with call_id {item.get('call_id')}.",
                            param="input",
                        )
                    if not isinstance(item.get("output"), str):
                        self._bad(f"Invalid type for '{where}.output'.", "invalid_type", f"{where}.output")
                    calls[item["call_id"]] = True
                    extra = set(item) - {"type", "call_id", "output"}
                case kind:
                    self._bad(f"Invalid value: '{kind}'.", "invalid_value", f"{where}.type")
                    extra = set()
            for name in extra:
                self._bad(f"Unknown parameter: '{where}.{name}'.", "unknown_parameter", f"{where}.{name}")
        for call_id, answered in calls.items():
            if not answered:
                self._bad(f"No tool output found for function call {call_id}.", param="input")

    def _response_events(self, body: dict[str, Any]) -> list[SseEvent | Wait]:
        parts = list(self.reply(body))
        tokens, ending = _extras(parts)
        skeleton = {"id": self.next_id("resp_"), "object": "response", "model": body["model"]}
        events: list[SseEvent | Wait] = []
        output: list[dict[str, Any]] = []

        def add(name: str, **fields: Any) -> None:
            events.append((name, {"type": name, **fields, "sequence_number": len(events)}))

        add("response.created", response={**skeleton, "status": "in_progress", "output": []})
        for part in parts:
            index = len(output)
            if isinstance(part, Wait):
                events.append(part)
            elif isinstance(part, Say):
                item: dict[str, Any] = {"id": self.next_id("msg_"), "type": "message", "role": "assistant"}
                text = {"type": "output_text", "text": part.text, "annotations": []}
                place = {"item_id": item["id"], "output_index": index, "content_index": 0}
                add("response.output_item.added", output_index=index, item={**item, "content": []})
                add("response.content_part.added", **place, part={**text, "text": ""})
                for word in words(part.text):
                    add("response.output_text.delta", **place, delta=word)
                add("response.output_text.done", **place, text=part.text)
                output.append({**item, "status": "completed", "content": [text]})
                add("response.output_item.done", output_index=index, item=output[-1])
            elif isinstance(part, Call):
                written = "".join(fragments(part.arguments))
                item = {
                    "id": self.next_id("fc_"),
                    "type": "function_call",
                    "call_id": part.id or self.next_id("call_"),
                    "name": part.name,
                }
                place = {"item_id": item["id"], "output_index": index}
                add("response.output_item.added", output_index=index, item={**item, "arguments": ""})
                for piece in fragments(part.arguments):
                    add("response.function_call_arguments.delta", **place, delta=piece)
                add("response.function_call_arguments.done", **place, arguments=written)
                output.append({**item, "status": "completed", "arguments": written})
                add("response.output_item.done", output_index=index, item=output[-1])
        usage = {
            "input_tokens": tokens.input,
            "input_tokens_details": {"cached_tokens": tokens.cached},
            "output_tokens": tokens.output,
            "output_tokens_details": {"reasoning_tokens": 0},
            "total_tokens": tokens.input + tokens.output,
        }
        last = {**skeleton, "output": output, "usage": usage}
        if ending == "failed":
            failure = {"code": "server_error", "message": "The model failed to generate a response."}
            add("response.failed", response={**last, "status": "failed", "error": failure})
        elif ending:
            add(
                "response.incomplete",
                response={**last, "status": "incomplete", "incomplete_details": {"reason": ending}},
            )
        else:
            add("response.completed", response={**last, "status": "completed"})
        return events

    # --- /v1/chat/completions ----------------------------------------------------------------------------

    async def _chat(self, request: web.Request) -> web.StreamResponse:
        recorded, fault = await self.begin(request)
        self._check_key(request)
        body: dict[str, Any] = json.loads(recorded.body)
        self._check_common(body, CHAT_KEYS)
        self._check_messages(body.get("messages"))
        for index, tool in enumerate(body.get("tools", [])):
            if tool.get("type") != "function" or "function" not in tool:
                where = f"tools[{index}].function"
                self._bad(f"Missing required parameter: '{where}'.", "missing_required_parameter", where)
            self._check_function(tool["function"], f"tools[{index}].function")
        if not self.local:
            effort = body.get("reasoning_effort")
            self._check_reasoning(body, effort, "reasoning_effort")
            if _reasons(body["model"]):
                if body.get("tools") and effort != "none":
                    self._bad("Function tools with reasoning_effort are not supported in /v1/chat/completions.")
                if "max_tokens" in body:
                    self._bad("Unsupported parameter: 'max_tokens'.", "unsupported_parameter", "max_tokens")
        self.answered.append(body)
        error: SseEvent = (None, {"error": {"message": "The model broke.", "code": "server_error"}})
        return await self.send_events(request, self._chat_events(body), fault, error, done=True)

    def _check_messages(self, messages: object) -> None:
        if not isinstance(messages, list) or not messages:
            self._bad("Missing required parameter: 'messages'.", "missing_required_parameter", "messages")
        assert isinstance(messages, list)
        open_calls: list[str] = []
        before = ""
        for index, message in enumerate(messages):
            where, role = f"messages.[{index}].role", message.get("role")
            if role == "tool":
                if message.get("tool_call_id") not in open_calls:
                    self._bad(
                        "messages with role 'tool' must be a response to a preceeding message with 'tool_calls'.",
                        param=where,
                    )
                open_calls.remove(message["tool_call_id"])
            elif open_calls:
                self._bad(
                    "An assistant message with 'tool_calls' must be followed by tool messages responding to each "
                    f"'tool_call_id'. Missing: {', '.join(open_calls)}",
                    param=where,
                )
            elif role == "assistant":
                open_calls = [call["id"] for call in message.get("tool_calls", [])]
                if not message.get("content") and not open_calls:
                    self._bad(f"Invalid value for 'content' of messages.[{index}].", "invalid_value")
            elif role not in ("user", "system", "developer"):
                self._bad(f"Invalid value: '{role}'.", "invalid_value", where)
            elif not message.get("content"):
                self._bad(f"Invalid value for 'content' of messages.[{index}].", "invalid_value")
            if self.local and ((role == before and role != "tool") or (role == "system" and index > 0)):
                self._bad("Conversation roles must alternate user/assistant/user/assistant/...")
            before = role
        if open_calls:
            self._bad("An assistant message with 'tool_calls' must be followed by tool messages.")

    def _chat_events(self, body: dict[str, Any]) -> list[SseEvent | Wait]:
        parts = list(self.reply(body))
        tokens, ending = _extras(parts)
        head = {"id": self.next_id("chatcmpl-"), "object": "chat.completion.chunk", "created": 1}
        head["model"] = body["model"]
        events: list[SseEvent | Wait] = []

        def add(delta: dict[str, Any], finish: str | None = None) -> None:
            events.append((None, {**head, "choices": [{"index": 0, "delta": delta, "finish_reason": finish}]}))

        add({"role": "assistant", "content": ""})
        index = 0
        for part in parts:
            if isinstance(part, Wait):
                events.append(part)
            elif isinstance(part, Say):
                for word in words(part.text):
                    add({"content": word})
            elif isinstance(part, Call):
                first, *rest = fragments(part.arguments)
                call_id = part.id or self.next_id("call_")
                named = {"id": call_id, "type": "function", "function": {"name": part.name, "arguments": first}}
                add({"tool_calls": [{"index": index, **named}]})
                for piece in rest:
                    add({"tool_calls": [{"index": index, "function": {"arguments": piece}}]})
                index += 1
        add({}, ending or ("tool_calls" if index else "stop"))
        if body.get("stream_options", {}).get("include_usage"):
            usage = {
                "prompt_tokens": tokens.input,
                "completion_tokens": tokens.output,
                "total_tokens": tokens.input + tokens.output,
                "prompt_tokens_details": {"cached_tokens": tokens.cached},
            }
            events.append((None, {**head, "choices": [], "usage": usage}))
        return events

    # --- what both interfaces check ----------------------------------------------------------------------

    def _check_common(self, body: dict[str, Any], known: set[str]) -> None:
        for name in set(body) - known:
            self._bad(f"Unknown parameter: '{name}'.", "unknown_parameter", name)
        self._check_model(body.get("model"))
        if body.get("stream") is not True:
            self._bad("This fake streams only.", "invalid_value", "stream")
        for name, longest in (("safety_identifier", 128), ("prompt_cache_key", 64)):
            if len(body.get(name, "")) > longest:
                self._bad(f"Invalid '{name}': string too long.", "string_above_max_length", name)

    def _check_function(self, function: dict[str, Any], where: str) -> None:
        if not TOOL_NAME.match(function["name"]):
            self._bad(f"Invalid '{where}.name'.", "invalid_value", f"{where}.name")
        if function.get("parameters", {}).get("type") != "object":
            self._bad(
                f"Invalid schema for function '{function['name']}': schema must be a JSON Schema of 'type: "
                '"object"\'.',
                "invalid_function_parameters",
                f"{where}.parameters",
            )

    def _check_reasoning(self, body: dict[str, Any], effort: str | None, param: str) -> None:
        model = body["model"]
        if not _reasons(model):
            if effort is not None:
                message = f"Unsupported parameter: '{param}' is not supported with this model."
                self._bad(message, "unsupported_parameter", param)
        elif effort == "minimal" and not re.match(r"gpt-5(-|$)", model):
            self._bad(f"Unsupported value: '{effort}' is not supported with '{model}'.", "unsupported_value", param)
        elif body.get("temperature", 1) != 1:
            message = "Unsupported value: 'temperature' does not support this value with this model."
            self._bad(message, "unsupported_value", "temperature")


def last_user_text(body: dict[str, Any]) -> str:
    """What the caller said last, in a request of either interface."""
    messages = body.get("input") or body["messages"]
    return next((str(m["content"]) for m in reversed(messages) if m.get("role") == "user"), "")


def _reasons(model: str) -> bool:
    return not re.match(r"gpt-[34]", model)


def _extras(parts: list[Part]) -> tuple[Tokens, str | None]:
    tokens = next((p for p in parts if isinstance(p, Tokens)), None)
    ending = next((p.reason for p in parts if isinstance(p, Ending)), None)
    count = sum(len(words(p.text)) for p in parts if isinstance(p, Say))
    return tokens or Tokens(100, count), ending

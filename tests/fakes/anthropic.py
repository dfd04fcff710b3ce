"""Anthropic on the wire: `POST /v1/messages` and `/v1/models/…`, API version 2026-10-21; as strict as Anthropic.

async with FakeAnthropic(lambda request: [Say("Hello!")]) as fake:
    AnthropicLlm(ProviderConfig("anthropic", "claude-haiku-5-5", api_key=fake.key, base_url=fake.url))
"""

from __future__ import annotations

import json
import re
from collections.abc import Sequence
from typing import Any

from aiohttp import web

from tests.fakes.llm import Call, Ending, FakeLlm, Part, Reply, Say, SseEvent, Tokens, Wait, fragments, words
from tests.fakes.misbehaviour import refuse

KEYS = {
    "model",
    "max_tokens",
    "messages",
    "system",
    "tools",
    "tool_choice",
    "thinking",
    "output_config",
    "metadata",
    "stream",
    "stop_sequences",
    "speed",
    "service_tier",
    "cache_control",
}
TOOL_USE_ID = re.compile(r"^[a-zA-Z0-9_-]+$")
TOOL_NAME = re.compile(r"^[a-zA-Z0-9_-]{1,128}$")
ERROR_TYPES = {
    400: "invalid_request_error",
    401: "authentication_error",
    404: "not_found_error",
    429: "rate_limit_error",
    500: "api_error",
    529: "overloaded_error",
}


class FakeAnthropic(FakeLlm):
    def __init__(
        self, reply: Reply | None = None, *, key: str = "test-key", unknown_models: Sequence[str] = ()
    ) -> None:
        super().__init__(reply, key=key)
        self.unknown_models = set(unknown_models)

    def routes(self) -> list[web.RouteDef]:
        return [web.post("/v1/messages", self._messages), web.get("/v1/models/{model}", self._model)]

    def error_response(self, status: int, headers: dict[str, str]) -> web.Response:
        texts = {401: "invalid bearer token", 429: "This request would exceed your rate limit.", 529: "Overloaded"}
        return self._error(status, texts.get(status, "Internal server error"), headers)

    def echo(self, body: dict[str, Any]) -> Sequence[Part]:
        return [Say(f"You said: {last_user_text(body)}")]

    def _error(self, status: int, message: str, headers: dict[str, str] | None = None) -> web.Response:
        kind = ERROR_TYPES.get(status, "api_error")
        body = {"type": "error", "error": {"type": kind, "message": message}, "request_id": "req_1"}
        return web.json_response(body, status=status, headers={"request-id": "req_1", **(headers or {})})

    def _bad(self, message: str) -> None:
        refuse(self._error(400, message))

    def _check_headers(self, request: web.Request) -> None:
        given = request.headers.get("Authorization", "").removeprefix("Bearer ") or request.headers.get("x-api-key")
        if given != self.key:
            refuse(self._error(401, f"invalid bearer token {given}"))
        if "anthropic-version" not in request.headers:
            self._bad("anthropic-version: header is required")

    def _check_model(self, model: object) -> None:
        if not isinstance(model, str):
            self._bad("model: Field required")
        if model in self.unknown_models:
            refuse(self._error(404, f"model: {model}"))

    async def _model(self, request: web.Request) -> web.StreamResponse:
        await self.begin(request)
        self._check_headers(request)
        model = request.match_info["model"]
        self._check_model(model)
        shown = {"id": model, "type": "model", "display_name": model, "created_at": "2026-09-01T00:00:00Z"}
        return web.json_response(shown)

    async def _messages(self, request: web.Request) -> web.StreamResponse:
        recorded, fault = await self.begin(request)
        self._check_headers(request)
        body: dict[str, Any] = json.loads(recorded.body)
        self._check_request(body)
        self.answered.append(body)
        broken = {"type": "error", "error": {"type": "overloaded_error", "message": "Overloaded"}}
        return await self.send_events(request, self._events(body), fault, ("error", broken))

    # --- what is refused ---------------------------------------------------------------------------------

    def _check_request(self, body: dict[str, Any]) -> None:
        for name in set(body) - KEYS:
            self._bad(f"{name}: Extra inputs are not permitted")
        self._check_model(body.get("model"))
        if not isinstance(body.get("max_tokens"), int) or body["max_tokens"] < 1:
            self._bad("max_tokens: Field required")
        if body.get("stream") is not True:
            self._bad("stream: this fake streams only")
        if set(body.get("metadata", {})) - {"user_id"}:
            self._bad("metadata: Extra inputs are not permitted")
        if body.get("thinking", {}).get("type") not in (None, "disabled", "adaptive", "between_tools", "enabled"):
            self._bad("thinking.type: Input should be 'disabled', 'adaptive', 'between_tools' or 'enabled'")
        for index, block in enumerate(body.get("system", [])):
            self._check_text(block, f"system.{index}")
        for index, tool in enumerate(body.get("tools", [])):
            self._check_tool(tool, f"tools.{index}")
        breakpoints = json.dumps(body).count('"cache_control"')
        if breakpoints > 4:
            self._bad(f"A maximum of 4 blocks with cache_control may be provided. Found {breakpoints}.")
        self._check_messages(body)

    def _check_tool(self, tool: dict[str, Any], where: str) -> None:
        if not TOOL_NAME.match(tool.get("name", "")):
            self._bad(f"{where}.custom.name: String should match pattern '{TOOL_NAME.pattern}'")
        if tool.get("input_schema", {}).get("type") != "object":
            self._bad(f"{where}.custom.input_schema.type: Field required")
        for name in set(tool) - {"name", "description", "input_schema", "cache_control", "strict"}:
            self._bad(f"{where}.custom.{name}: Extra inputs are not permitted")

    def _check_text(self, block: dict[str, Any], where: str) -> None:
        if not str(block.get("text", "")):
            self._bad(f"{where}: text content blocks must be non-empty")
        if not block["text"].strip():
            self._bad(f"{where}: text content blocks must contain non-whitespace text")

    def _check_messages(self, body: dict[str, Any]) -> None:
        messages = body.get("messages")
        if not isinstance(messages, list) or not messages:
            self._bad("messages: at least one message is required")
        assert isinstance(messages, list)
        open_uses: list[str] = []
        seen: set[str] = set()
        for index, message in enumerate(messages):
            where, role = f"messages.{index}", message.get("role")
            if role != ("user", "assistant")[index % 2]:
                self._bad(f'{where}: roles must alternate between "user" and "assistant", beginning with "user"')
            content = message.get("content")
            blocks = [{"type": "text", "text": content}] if isinstance(content, str) else content
            if not blocks:
                self._bad(f"{where}: all messages must have non-empty content")
            results = [b["tool_use_id"] for b in blocks if b["type"] == "tool_result"]
            for use in open_uses:
                if use not in results:
                    self._bad(
                        f"{where}: `tool_use` ids were found without `tool_result` blocks right after: {use}. "
                        "Each `tool_use` block must have a corresponding `tool_result` block in the next message."
                    )
            if any(b["type"] == "tool_result" for b in blocks[len(results) :]):
                self._bad(f"{where}: tool_result blocks must come first in the content")
            for result in results:
                if result not in open_uses:
                    self._bad(f"{where}: unexpected `tool_use_id` found in `tool_result` blocks: {result}.")
            open_uses = []
            for number, block in enumerate(blocks):
                place = f"{where}.content.{number}"
                match block["type"], role:
                    case "text", _:
                        self._check_text(block, place)
                    case "tool_use", "assistant":
                        if not TOOL_USE_ID.match(block["id"]):
                            self._bad(f"{place}.tool_use.id: String should match pattern '{TOOL_USE_ID.pattern}'")
                        if block["id"] in seen:
                            self._bad(f"{where}: `tool_use` ids must be unique")
                        if not isinstance(block.get("input"), dict):
                            self._bad(f"{place}.tool_use.input: Input should be a valid dictionary")
                        seen.add(block["id"])
                        open_uses.append(block["id"])
                    case "tool_result", "user":
                        pass
                    case kind, _:
                        self._bad(f"{place}: Input tag '{kind}' is not allowed in role {role}")
        if messages[-1]["role"] != "user":
            self._bad("This model does not support assistant message prefill.")
        if seen and not body.get("tools"):
            self._bad("Requests which include `tool_use` or `tool_result` blocks must define tools")

    # --- what is answered --------------------------------------------------------------------------------

    def _events(self, body: dict[str, Any]) -> list[SseEvent | Wait]:
        parts = list(self.reply(body))
        given = next((p for p in parts if isinstance(p, Tokens)), None)
        said = sum(len(words(p.text)) for p in parts if isinstance(p, Say))
        tokens = given or Tokens(100, said)
        ending = next((p.reason for p in parts if isinstance(p, Ending)), None)
        usage = {
            "input_tokens": tokens.input - tokens.cached,
            "cache_creation_input_tokens": 0,
            "cache_read_input_tokens": tokens.cached,
            "output_tokens": 1,
        }
        message = {
            "id": self.next_id("msg_"),
            "type": "message",
            "role": "assistant",
            "model": body["model"],
            "content": [],
            "stop_reason": None,
            "stop_sequence": None,
            "usage": usage,
        }
        events: list[SseEvent | Wait] = []

        def add(name: str, **fields: Any) -> None:
            events.append((name, {"type": name, **fields}))

        def block(index: int, start: dict[str, Any], deltas: Sequence[dict[str, Any]]) -> None:
            add("content_block_start", index=index, content_block=start)
            for delta in deltas:
                add("content_block_delta", index=index, delta=delta)
            add("content_block_stop", index=index)

        add("message_start", message=message)
        add("ping")
        index = 0
        for part in parts:
            if isinstance(part, Wait):
                events.append(part)
            elif isinstance(part, Say):
                deltas = [{"type": "text_delta", "text": word} for word in words(part.text)]
                block(index, {"type": "text", "text": ""}, deltas)
                index += 1
            elif isinstance(part, Call):
                start = {
                    "type": "tool_use",
                    "id": part.id or self.next_id("toolu_"),
                    "name": part.name,
                    "input": {},
                }
                pieces = [] if part.arguments == {} else fragments(part.arguments)
                block(index, start, [{"type": "input_json_delta", "partial_json": piece} for piece in pieces])
                index += 1
        called = any(isinstance(p, Call) for p in parts)
        reason = ending or ("tool_use" if called else "end_turn")
        add(
            "message_delta",
            delta={"stop_reason": reason, "stop_sequence": None},
            usage={**usage, "output_tokens": tokens.output},
        )
        add("message_stop")
        return events


def last_user_text(body: dict[str, Any]) -> str:
    """What the caller said last: the last text of the last user message that has one."""
    for message in reversed(body["messages"]):
        if message["role"] == "user":
            texts = [b["text"] for b in message["content"] if b["type"] == "text"]
            if texts:
                return str(texts[-1])
    return ""

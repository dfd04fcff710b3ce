"""The live route: who may, what comes, and what a listener that does not read costs the others."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import aiohttp
import pytest
import pytest_asyncio
from aiohttp.test_utils import TestServer
from temporalio.client import Client

from media_bridge import live_access
from media_bridge.conversation import events as ev
from media_bridge.server.app import build_app
from media_bridge.shared import Shared
from stayline.settings import Settings, TwilioCredentials

CALL = "CA0123"
TWILIO = TwilioCredentials(auth_token="the-carriers-token")  # type: ignore[arg-type]


class Route:
    def __init__(self, bridge: Shared, http: aiohttp.ClientSession) -> None:
        self.bridge = bridge
        self.http = http

    def right(self, call_id: str = CALL) -> dict[str, str]:
        token = live_access.token(self.bridge.settings, self.bridge.twilio, call_id)
        return {"Authorization": f"Bearer {token}"}

    def follow(self, query: str = "", **headers: str) -> Any:
        return self.http.get(f"/api/v1/calls/{CALL}/live{query}", headers={**self.right(), **headers})

    async def read(self, query: str = "", **headers: str) -> list[tuple[str, Any]]:
        """All messages, to the end."""
        async with self.follow(query, **headers) as answer:
            assert answer.status == 200
            assert answer.content_type == "text/event-stream"
            text = (await answer.read()).decode()
        found = []
        for message in text.split("\n\n"):
            fields = dict(line.split(": ", 1) for line in message.splitlines() if not line.startswith(":"))
            if fields:
                found.append((fields["event"], json.loads(fields["data"])))
        return found


@pytest_asyncio.fixture
async def route(client: Client, tmp_path: Path) -> AsyncIterator[Route]:
    bridge = Shared(Settings(data_dir=tmp_path), TWILIO, {}, client)
    async with TestServer(build_app(bridge)) as server, aiohttp.ClientSession(server.make_url("")) as http:
        yield Route(bridge, http)


async def test_a_session_from_its_beginning_to_its_end(route: Route) -> None:
    live = route.bridge.live.open(CALL, 1)
    live.event(ev.CallerSpoke())
    reading = asyncio.create_task(route.read())
    live.audio("audio_received", 160)
    live.event(ev.CallerTurn("hello"))
    live.close()
    messages = await reading
    assert [(kind, data.get("seq"), data.get("total_bytes")) for kind, data in messages] == [
        ("user_speech_start", 1, 0),
        ("audio_received", 2, 160),
        ("user_speech_end", 3, 0),
        ("over", None, None),
    ]
    assert all(data["at"].endswith("Z") for _, data in messages[:-1])


async def test_going_on_from_where_one_was(route: Route) -> None:
    live = route.bridge.live.open(CALL, 1)
    for _ in range(3):
        live.event(ev.CallerSpoke())
        live.event(ev.CallerTurn("hello"))
    live.close()
    assert len(await route.read("?after=4")) == 3
    assert len(await route.read(**{"Last-Event-ID": "5"})) == 2


async def test_one_of_several_sessions(route: Route) -> None:
    first, second = route.bridge.live.open(CALL, 1), route.bridge.live.open(CALL, 2)
    first.event(ev.CallerSpoke())
    second.event(ev.SpeechBegan(1))
    first.close()
    second.close()
    assert (await route.read("?session=1"))[0][0] == "user_speech_start"
    assert (await route.read("?session=2"))[0][0] == "agent_speech_start"
    assert (await route.read())[0][0] == "agent_speech_start", "the newest"


@pytest.mark.parametrize(
    "headers",
    [
        {},
        {"Authorization": ""},
        {"Authorization": "Bearer "},
        {"Authorization": "Bearer nonsense"},
        {"Authorization": "Bearer näh"},
        {"Authorization": "Basic {token}"},
        {"Authorization": "Bearer {other}"},
    ],
)
async def test_nobody_without_the_right_to_this_very_call(route: Route, headers: dict[str, str]) -> None:
    route.bridge.live.open(CALL, 1)
    token = live_access.token(route.bridge.settings, TWILIO, CALL)
    other = live_access.token(route.bridge.settings, TWILIO, "CA9999")
    given = {name: value.format(token=token, other=other) for name, value in headers.items()}
    for method, what in (("GET", "live"), ("POST", "interrupt")):
        async with route.http.request(method, f"/api/v1/calls/{CALL}/{what}", headers=given) as answer:
            assert answer.status == 401
            assert CALL not in await answer.text()


async def test_the_key_is_a_setting_else_the_carriers_token_else_there_is_no_access() -> None:
    own = Settings(live_key="one of our own")  # type: ignore[arg-type]
    tokens = {
        live_access.token(own, TWILIO, CALL),
        live_access.token(Settings(), TWILIO, CALL),
        live_access.token(Settings(), TwilioCredentials(auth_token=""), CALL),  # type: ignore[arg-type]
    }
    assert len(tokens) == 3
    assert "" in tokens


async def test_without_a_key_nobody_gets_in(client: Client, tmp_path: Path) -> None:
    nobody = TwilioCredentials(auth_token="")  # type: ignore[arg-type]
    bridge = Shared(Settings(data_dir=tmp_path), nobody, {}, client)
    bridge.live.open(CALL, 1)
    async with TestServer(build_app(bridge)) as server, aiohttp.ClientSession(server.make_url("")) as http:
        for given in ("Bearer ", "Bearer x"):
            url = f"/api/v1/calls/{CALL}/live"
            async with http.get(url, headers={"Authorization": given}) as answer:
                assert answer.status == 401


@pytest.mark.parametrize(
    ("query", "status"), [("", 404), ("?session=2", 404), ("?session=x", 400), ("?after=-1", 400)]
)
async def test_what_is_not_there(route: Route, query: str, status: int) -> None:
    if "after" in query:
        route.bridge.live.open(CALL, 1)
    async with route.follow(query) as answer:
        assert answer.status == status


async def test_a_call_that_is_not_held_here_cannot_be_interrupted(route: Route) -> None:
    async with route.http.post(f"/api/v1/calls/{CALL}/interrupt", headers=route.right()) as answer:
        assert answer.status == 404


async def test_a_listener_that_does_not_read_holds_up_nobody(route: Route) -> None:
    live = route.bridge.live.open(CALL, 1)
    async with route.follow() as asleep:
        assert asleep.status == 200
        for _ in range(1500):  # more than fits in the socket's buffers
            live.event(ev.CallerSpoke())
            live.event(ev.CallerTurn("hello"))
            await asyncio.sleep(0)
        live.close()
        assert len(await route.read()) == 3001


async def test_a_listener_that_leaves_is_no_failure(route: Route, capsys: pytest.CaptureFixture[str]) -> None:
    live = route.bridge.live.open(CALL, 1)
    live.event(ev.CallerSpoke())
    async with route.follow() as leaving:
        assert await leaving.content.readany()
        leaving.close()
    for _ in range(20):
        live.event(ev.CallerTurn("hello"))
        live.event(ev.CallerSpoke())
        await asyncio.sleep(0)
    live.close()
    assert len(await route.read()) == 43
    assert "request_failed" not in capsys.readouterr().out

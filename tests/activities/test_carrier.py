"""Hang-up and redirect over the wire, against a server that answers as Twilio's REST interface does."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from dataclasses import dataclass, field
from typing import Any

import pytest
import pytest_asyncio
from aiohttp import web
from aiohttp.test_utils import TestServer
from temporalio.exceptions import ApplicationError
from temporalio.testing import ActivityEnvironment

from activities.carrier import CarrierActivities
from stayline.messages import HangUp, Redirect
from stayline.settings import TwilioCredentials

ACCOUNT = "AC" + "0" * 32
CALL = "CA" + "1" * 32


@dataclass
class Rest:
    """Twilio's `Calls` resource and a bridge's `/health`, on one port."""

    origin: str = ""
    asked: list[tuple[str, dict[str, str]]] = field(default_factory=list)
    status: int = 200
    answer: dict[str, Any] = field(default_factory=dict)
    headers: dict[str, str] = field(default_factory=dict)
    healthy: bool = True
    answers: asyncio.Event | None = None  #: it waits for that

    async def update(self, request: web.Request) -> web.Response:
        assert request.headers["Authorization"].startswith("Basic ")
        form = await request.post()
        self.asked.append((request.path, {key: str(value) for key, value in form.items()}))
        if self.answers is not None:
            await self.answers.wait()
        body = self.answer or {"sid": CALL, "status": "completed"}
        return web.json_response(body, status=self.status, headers=self.headers)

    async def health(self, request: web.Request) -> web.Response:
        return web.Response(status=200 if self.healthy else 503)


@pytest_asyncio.fixture
async def rest() -> AsyncIterator[Rest]:
    fake = Rest()
    app = web.Application()
    app.router.add_post("/2010-04-01/Accounts/{account}/Calls/{call}", fake.update)
    app.router.add_get("/health", fake.health)
    async with TestServer(app) as server:
        fake.origin = str(server.make_url("")).rstrip("/")
        yield fake


def carrier(origin: str, token: str = "secret") -> CarrierActivities:
    return CarrierActivities(TwilioCredentials(account_sid=ACCOUNT, auth_token=token, base_url=origin))


async def hang_up(origin: str, **settings: str) -> Any:
    activities = carrier(origin, **settings)
    return await ActivityEnvironment().run(activities.hang_up, HangUp(call_id=CALL))


async def redirect(origin: str, public_url: str) -> Any:
    ask = Redirect(call_id=CALL, public_url=public_url)
    return await ActivityEnvironment().run(carrier(origin).redirect_call, ask)


async def test_hang_up(rest: Rest) -> None:
    assert await hang_up(rest.origin) is True
    assert rest.asked == [(f"/2010-04-01/Accounts/{ACCOUNT}/Calls/{CALL}.json", {"Status": "completed"})]


@pytest.mark.parametrize(
    ("status", "code"), [(404, 20404), (400, 21220), (404, 0)], ids=["gone", "not in progress", "plain 404"]
)
async def test_a_call_that_is_over_is_hung_up_already(rest: Rest, status: int, code: int) -> None:
    rest.status, rest.answer = status, {"code": code, "message": "no", "status": status}
    assert await hang_up(rest.origin) is False
    assert await redirect(rest.origin, rest.origin) is False


@pytest.mark.parametrize(
    ("status", "kind", "final"),
    [(401, "CarrierRefused", True), (400, "CarrierRefused", True), (503, "CarrierUnreachable", False)],
)
async def test_other_answers(rest: Rest, status: int, kind: str, final: bool) -> None:
    rest.status, rest.answer = status, {"code": 1, "message": "sorry", "status": status}
    with pytest.raises(ApplicationError) as caught:
        await hang_up(rest.origin)
    assert (caught.value.type, caught.value.non_retryable) == (kind, final)
    assert "secret" not in str(caught.value)


async def test_too_many_requests_says_when_to_come_back(rest: Rest) -> None:
    rest.status, rest.headers = 429, {"Retry-After": "7"}
    with pytest.raises(ApplicationError) as caught:
        await hang_up(rest.origin)
    assert not caught.value.non_retryable
    assert caught.value.next_retry_delay is not None
    assert caught.value.next_retry_delay.total_seconds() == 7


async def test_nobody_there(unused_tcp_port: int) -> None:
    with pytest.raises(ApplicationError) as caught:
        await hang_up(f"http://127.0.0.1:{unused_tcp_port}")
    assert (caught.value.type, caught.value.non_retryable) == ("CarrierUnreachable", False)


async def test_without_credentials(rest: Rest) -> None:
    with pytest.raises(ApplicationError) as caught:
        await hang_up(rest.origin, token="")
    assert (caught.value.type, caught.value.non_retryable) == ("CarrierNotConfigured", True)


async def test_while_the_carrier_takes_its_time_the_worker_says_that_it_lives(
    rest: Rest, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("activities.carrier.BEAT_EVERY", 0.05)
    rest.answers = asyncio.Event()
    beats: list[tuple[Any, ...]] = []

    def heartbeat(*details: Any) -> None:
        beats.append(details)
        if len(beats) > 1 and rest.answers is not None:
            rest.answers.set()

    environment = ActivityEnvironment()
    environment.on_heartbeat = heartbeat
    assert await environment.run(carrier(rest.origin).hang_up, HangUp(call_id=CALL)) is True


async def test_redirect_to_a_living_bridge(rest: Rest) -> None:
    assert await redirect(rest.origin, rest.origin) is True
    [(_, form)] = rest.asked
    assert form == {"Twiml": f'<Response><Redirect method="POST">{rest.origin}/voice/next</Redirect></Response>'}


async def test_no_redirect_to_a_dead_address(rest: Rest) -> None:
    rest.healthy = False
    with pytest.raises(ApplicationError) as caught:
        await redirect(rest.origin, rest.origin)
    assert (caught.value.type, caught.value.non_retryable) == ("NoBridge", False)
    assert rest.asked == []

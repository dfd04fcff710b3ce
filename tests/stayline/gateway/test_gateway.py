"""The gateway's own life: starting, refusing to, holding calls beside others, stopping with calls on the line."""

from __future__ import annotations

import asyncio
import base64
import logging
import os
import signal
import sys
from pathlib import Path
from typing import Any

import aiohttp
import pytest
from temporalio.client import Client

from activities.records_db import CallStore
from stayline import CallInfo, ConfigError, Gateway, RejectCall, StaylineError
from stayline.gateway import running as running_module
from stayline.lab.callee import Callee
from stayline.lab.carrier import LabCarrier
from stayline.messages import Dial
from stayline.ports import free_port
from stayline.settings import Settings
from stayline.temporal import connect
from tests.stayline.gateway.embedded import (
    NUMBER,
    PATIENCE,
    Embedded,
    Listener,
    config,
    embedded,
    eventually,
    vendors,
)
from tests.stayline.gateway.own import Parrot, RealtimeParrot
from tests.whole_call.house import ACCOUNT, TOKEN
from tests.whole_call.puppet import Puppet


async def record_of(place: Embedded, call_id: str) -> Any:
    """The call's record in the database, when it is complete."""
    running = place.gateway._started()
    async with CallStore(running.bridge.settings.database) as store:

        async def final() -> bool:
            record = await store.get_call(call_id)
            return record is not None and record.final

        await eventually(final)
        return await store.get_call(call_id)


# --- calls -----------------------------------------------------------------------------------------------


async def test_a_call_with_a_language_model_of_ones_own(client: Client, tmp_path: Path) -> None:
    parrot = Parrot()
    async with embedded(tmp_path, client, llm_client=parrot, llm_system_prompt="Squawk.") as place:
        assert parrot.warmed
        caller = await place.greeted()
        await caller.asks("pretty polly")
        await caller.leaves()
        record = await record_of(place, caller.sid)
        said = [entry.event.text for entry in record.timeline if entry.event.type in ("user_turn", "agent_turn")]
        assert said == ["Hello there.", "pretty polly", "pretty polly"]
        assert place.openai.requests == []
    (request,) = parrot.requests
    assert (request.instructions, request.call_id) == ("Squawk.", caller.sid)
    assert parrot.closed


async def test_a_call_with_a_vendors_own_client(client: Client, tmp_path: Path) -> None:
    import openai

    async with vendors() as (environment, _, fake):
        own = openai.AsyncOpenAI(api_key=environment["OPENAI_API_KEY"], base_url=f"{fake.url}/v1", max_retries=2)
        async with embedded(
            tmp_path, client, llm_client=own, llm_model="gpt-6-luna", options={"llm": {"max_tokens": 99}}
        ) as place:
            caller = await place.greeted()
            await caller.asks("hello")
            await caller.leaves()
            assert place.openai.requests == [], "the configured one was not asked"
        (asked,) = fake.answered
        assert (asked["model"], asked["max_output_tokens"]) == ("gpt-6-luna", 99)
        assert not own.is_closed(), "it is the application's"
        await own.close()


async def test_a_call_with_a_realtime_model_of_ones_own(client: Client, tmp_path: Path) -> None:
    model = RealtimeParrot()
    async with embedded(tmp_path, client, mode="realtime", realtime_provider=model) as place:
        caller = await place.greeted()
        heard = Listener(await place.session(caller))
        await caller.say(None, ms=600)
        await heard.until("agent_transcript", 2)
        await caller.leaves()
        events = await heard.end()
    said = [(event.type.value, event.data) for event in events if event.type.value.endswith("_transcript")]
    assert said == [
        ("agent_transcript", "Hello there."),
        ("user_transcript", "some sound"),
        ("agent_transcript", "I heard you."),
    ]
    assert {"user_speech_start", "user_speech_end", "agent_thinking", "agent_speech_end"} <= {
        event.type.value for event in events
    }
    assert model.sessions[0].request.call_id == caller.sid


async def test_who_is_let_in(client: Client, tmp_path: Path) -> None:
    async with embedded(tmp_path, client) as place:
        asked: list[CallInfo] = []

        @place.gateway.on_call
        async def screen(call: CallInfo) -> None:
            asked.append(call)
            if call.from_number == "+15550109999":
                raise RejectCall("Sorry, no.")

        refused = Puppet(place.deepgram, asyncio.Lock())
        await refused.ring(place.carrier, NUMBER, "+15550109999")
        await refused.call.wait()
        events = await Listener(await place.session(refused)).end()
        assert [(event.type.value, event.data) for event in events] == [("session_ended", "rejected")]
        caller = await place.greeted()
        await caller.leaves()
    assert [(call.from_number, call.agent) for call in asked] == [
        ("+15550109999", "gateway"),
        ("+15550100001", "gateway"),
    ]


async def test_calling_somebody(client: Client, tmp_path: Path) -> None:
    async with embedded(tmp_path, client) as place:
        person = Puppet(place.deepgram, asyncio.Lock())
        place.carrier.callees["+15550200001"] = Callee(caller=lambda: person)
        session = await place.gateway.make_call("+15550200001", dial=Dial(ring_timeout=20))
        assert (session.direction, session.from_number, session.to_number) == ("outbound", NUMBER, "+15550200001")
        heard = Listener(session)
        await heard.until("session_started")
        person.call = place.carrier.calls[(await session.refresh()).call.carrier_call_id]
        await person.hears_out()
        await person.asks("who is this")
        await person.leaves()
        events = await heard.end()
        assert [e.data for e in events if e.type == "user_transcript"] == ["who is this"]
        assert {"audio_received", "agent_speech_end"} <= {e.type.value for e in events}
        assert events[-1].data == "caller_hung_up"
        again = await place.gateway.make_call("+15550200001", call_id=session.id)
        assert again.id == session.id, "asking twice calls once"
        with pytest.raises(ConfigError, match="cannot be dialled"):
            await place.gateway.make_call("555")


async def test_calling_without_a_number_to_call_from(client: Client, tmp_path: Path) -> None:
    async with embedded(tmp_path, client, phone_number="") as place:
        with pytest.raises(ConfigError, match="no number to call from"):
            await place.gateway.make_call("+15550200001")


def test_a_policy_takes_the_call_and_nothing_else(tmp_path: Path) -> None:
    gateway = Gateway(config(tmp_path, None, 1, {}, **OWN))
    with pytest.raises(ConfigError, match="takes one argument"):
        gateway.on_call(lambda: None)  # type: ignore[arg-type, misc]
    assert gateway.on_call(screen_nobody) is screen_nobody


def screen_nobody(call: CallInfo) -> None: ...


# --- starting --------------------------------------------------------------------------------------------

OWN: dict[str, Any] = {"mode": "realtime", "realtime_provider": RealtimeParrot}
"""A gateway without vendors."""


async def test_it_starts_once_and_stops_once(client: Client, tmp_path: Path) -> None:
    port = free_port()
    gateway = Gateway(config(tmp_path, client, port, {}, **OWN))
    assert (gateway.name, gateway.url) == ("lab", "")
    with pytest.raises(StaylineError, match="does not run"):
        await gateway.get_session("CA1")
    await asyncio.gather(gateway.start(), gateway.start())
    assert gateway.url == f"http://127.0.0.1:{port}"
    async with aiohttp.ClientSession() as http, http.get(f"{gateway.url}/ready") as answer:
        assert answer.status == 200, "calls are taken when `start` returns"
    await asyncio.gather(gateway.stop(), gateway.stop())
    await gateway.stop()
    with pytest.raises(StaylineError, match="was stopped"):
        await gateway.start()
    assert asyncio.all_tasks() == {asyncio.current_task()}


async def test_without_temporal_it_brings_its_own(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("TEMPORAL_ADDRESS", "TEMPORAL_PROFILE", "TEMPORAL_CONFIG_FILE"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("HOME", str(tmp_path))  # no profile of the user's either
    async with embedded(tmp_path, None) as place:
        caller = await place.greeted()
        await caller.asks("hello")
        await caller.leaves()
        assert (await record_of(place, caller.sid)).snapshot.outcome == "caller_hung_up"
    assert (tmp_path / "temporal.db").exists()
    assert not (tmp_path / "temporal.json").exists(), "it ended with the gateway"


async def test_an_address_that_is_taken(client: Client, tmp_path: Path) -> None:
    first = Gateway(config(tmp_path, client, free_port(), {}, **OWN))
    async with first:
        port = int(first.url.rpartition(":")[2])
        second = Gateway(config(tmp_path, client, port, {}, run_worker=False, **OWN))
        with pytest.raises(ConfigError, match="Cannot listen"):
            await second.start()
        await second.stop()
    assert asyncio.all_tasks() == {asyncio.current_task()}


async def test_a_temporal_that_does_not_answer(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(running_module, "READY_WITHIN", 0.5)
    address = f"127.0.0.1:{free_port()}"
    gateway = Gateway(config(tmp_path, None, free_port(), {}, temporal_address=address, **OWN))
    with pytest.raises(StaylineError, match=f"Temporal does not answer at {address}"):
        await gateway.start()


async def test_a_client_that_speaks_otherwise(client: Client, tmp_path: Path) -> None:
    other = await Client.connect(client.service_client.config.target_host)
    gateway = Gateway(config(tmp_path, other, free_port(), {}, **OWN))
    with pytest.raises(ConfigError, match="temporal_client cannot carry Stayline's messages"):
        await gateway.start()


async def test_a_client_that_encrypts_nothing_though_it_should(client: Client, tmp_path: Path) -> None:
    keys = {"encryption_keys": f"a:{base64.b64encode(bytes(32)).decode()}"}
    gateway = Gateway(config(tmp_path, client, free_port(), {}, settings=keys, **OWN))
    with pytest.raises(ConfigError, match="temporal_client encrypts nothing"):
        await gateway.start()


async def test_its_log_lines_go_where_the_application_says(
    client: Client, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.INFO, "shop")
    async with embedded(tmp_path, client, logger=logging.getLogger("shop")) as place:
        caller = await place.greeted()
        await caller.leaves()
    lines = [record.getMessage() for record in caplog.records if record.name.startswith("shop.")]
    assert any(line.startswith("gateway_started agent='gateway'") for line in lines)
    assert any(line.startswith("call_admitted") and caller.sid in line for line in lines)
    text = "\n".join(lines)
    assert "+15550100001" not in text
    assert TOKEN not in text


# --- beside others ---------------------------------------------------------------------------------------


async def test_two_gateways_are_one_service(client: Client, tmp_path: Path) -> None:
    """Each sees the other's calls, live events included, and takes them over when the other stops."""
    shared = {"settings": {"reuse_port": True}}
    async with embedded(tmp_path, client, **shared) as place:
        with pytest.raises(ConfigError, match="need a temporal_client each"):
            await Gateway(place.config).start()
        theirs = await connect(Settings(), address=client.service_client.config.target_host)
        other = Gateway(place.config.model_copy(update={"temporal_client": theirs}))
        async with other:
            caller = await place.greeted()
            session = await place.session(caller)
            holders = {gateway._started().bridge.id: gateway for gateway in (place.gateway, other)}
            holder = holders.pop(str(session.snapshot.bridge_id))
            (watcher,) = holders.values()
            seen = await watcher.get_session(caller.sid)
            assert seen is not None
            watching = Listener(seen)
            await watching.until("audio_sent")

            async def listed() -> bool:
                return caller.sid in [s.id for s in await watcher.list_sessions()]

            await eventually(listed)
            await holder.stop()

            async def taken_over() -> bool:
                return (await seen.refresh()).bridge_id == watcher._started().bridge.id

            await eventually(taken_over)
            await caller.asks("still there")
            await caller.leaves()
            events = await watching.end()
            assert [e.data for e in events if e.type == "user_transcript"] == ["still there"]
            assert {e.attachment for e in events if e.type == "audio_received"} == {1, 2}
            assert [e.type.value for e in events].count("session_started") == 1


# --- stopping --------------------------------------------------------------------------------------------


async def test_stopping_with_a_call_on_the_line(client: Client, tmp_path: Path) -> None:
    """Nobody else can take it: the caller hears a goodbye, the record is complete, and nothing hangs."""
    async with embedded(tmp_path, client, agent={"goodbye": "We have to close now."}) as place:
        caller = await place.greeted()
        heard = Listener(await place.session(caller))
        await heard.until("audio_sent")
        running = place.gateway._started()
        async with asyncio.timeout(PATIENCE):
            await place.gateway.stop()
        await caller.call.wait()
        async with CallStore(running.bridge.settings.database) as store:
            record = await store.get_call(caller.sid)
    assert record is not None
    assert record.final
    assert (record.snapshot.outcome, record.snapshot.status) == ("completed", "ended")
    said = [entry.event.text for entry in record.timeline if entry.event.type == "agent_turn"]
    assert said == ["Hello there.", "We have to close now."]


async def test_serving_ends_when_somebody_stops_it(client: Client, tmp_path: Path) -> None:
    gateway = Gateway(config(tmp_path, client, free_port(), {}, **OWN))
    serving = asyncio.create_task(gateway.serve_forever())

    async def started() -> bool:
        return bool(gateway.url)

    await eventually(started)
    await gateway.stop()
    async with asyncio.timeout(PATIENCE):
        await serving


PROGRAM = """
from stayline import Gateway, GatewayConfig
gateway = Gateway(GatewayConfig(stt_provider="deepgram", llm_provider="openai", tts_provider="elevenlabs",
                                greeting="Hello there.", carrier="lab"))
gateway.run()
print("stopped")
"""


async def test_a_program_that_does_nothing_else(tmp_path: Path) -> None:
    port = free_port()
    async with (
        vendors() as (environment, deepgram, _),
        LabCarrier(f"http://127.0.0.1:{port}", ACCOUNT, TOKEN) as carrier,
    ):
        without = {name: value for name, value in os.environ.items() if not name.startswith("TEMPORAL_")}
        process = await asyncio.create_subprocess_exec(
            sys.executable,
            "-c",
            PROGRAM,
            env={
                **without,
                **environment,
                "HOME": str(tmp_path),
                "TWILIO_ACCOUNT_SID": ACCOUNT,
                "TWILIO_AUTH_TOKEN": TOKEN,
                "TWILIO_BASE_URL": carrier.rest_url,
                "STAYLINE_LISTEN_ADDR": f"127.0.0.1:{port}",
                "STAYLINE_DATA_DIR": str(tmp_path / "data"),
                "STAYLINE_DRAIN_TIMEOUT": "1",
            },
            stdout=asyncio.subprocess.PIPE,
        )
        try:

            async def ready() -> bool:
                assert process.returncode is None
                try:
                    async with (
                        aiohttp.ClientSession() as http,
                        http.get(f"http://127.0.0.1:{port}/ready") as answer,
                    ):
                        return answer.status == 200
                except aiohttp.ClientError:
                    return False

            await eventually(ready)
            caller = Puppet(deepgram, asyncio.Lock())
            await caller.ring(carrier, NUMBER)
            await caller.hears_out()
            await caller.asks("hello")
            process.send_signal(signal.SIGTERM)
            await caller.call.wait()
            async with asyncio.timeout(PATIENCE):
                output, _ = await process.communicate()
        finally:
            if process.returncode is None:
                process.kill()
                await process.wait()
    assert process.returncode == 0
    assert output.decode().splitlines()[-1] == "stopped"

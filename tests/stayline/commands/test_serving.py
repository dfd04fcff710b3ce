"""`stayline serve` and `stayline worker` as processes: what they refuse before they listen, and how they end."""

from __future__ import annotations

import asyncio
import os
import signal
import socket
from pathlib import Path

import pytest
from temporalio.client import Client

from stayline.commands.processes import Child, bridge_ready, worker_ready
from stayline.ports import free_port
from tests.stayline.commands.children import Finished, stayline, surroundings
from tests.whole_call import agents
from tests.whole_call.house import ACCOUNT, TOKEN

AGENT = f"{agents.__file__}:agent"
NOWHERE = "http://127.0.0.1:9"
"""Vendors that are down; a bridge starts all the same, since they may be up by the first call."""

VENDORS = {
    f"{vendor}_{what}": value
    for vendor in ("DEEPGRAM", "OPENAI", "ELEVENLABS")
    for what, value in (("API_KEY", "key"), ("BASE_URL", NOWHERE))
}
SOUND = {
    **VENDORS,
    "TWILIO_ACCOUNT_SID": ACCOUNT,
    "TWILIO_AUTH_TOKEN": TOKEN,
    "STAYLINE_CARRIER": "lab",
    "STAYLINE_LOG_FORMAT": "console",
    # Whoever came to connect would wait for a minute; so a refusal came before.
    "TEMPORAL_ADDRESS": "127.0.0.1:9",
}

SOURCE = """
from stayline import Agent, tool
engines = dict(stt="deepgram/nova-3", tts="elevenlabs/eleven_flash_v2_5", voice="v")
old = Agent(llm="openai/gpt-4-turbo", **engines)
misspelt = Agent(llm="openai/gpt-6-luna", options={"llm": {"max_token": 5}}, **engines)
unreachable = Agent(llm="openai/gpt-6-luna", transfers={"support": "555"}, **engines)
"""
BAD_TOOL = """
from stayline import tool
@tool
def lookup(*numbers: str): ...
"""


async def refusal(command: str, folder: Path, agent: str, **environment: str) -> Finished:
    (folder / "office.py").write_text(SOURCE)
    (folder / "bad_tool.py").write_text(BAD_TOOL)
    return await stayline(command, "--agent", agent, folder=folder, **{**SOUND, **environment})


@pytest.mark.parametrize(
    ("command", "agent", "environment", "message"),
    [
        ("serve", "nowhere:agent", {}, "there is no module 'nowhere'."),
        ("serve", AGENT, {"STAYLINE_MAX_CALL": "5"}, "Did you mean 'STAYLINE_MAX_CALLS'?"),
        ("serve", AGENT, {"OPENAI_API_KEY": ""}, "Set OPENAI_API_KEY in the environment."),
        ("serve", "office:old", {}, 'Use llm="openai/gpt-6-luna".'),
        ("serve", "office:misspelt", {}, "Did you mean 'max_tokens'?"),
        ("serve", AGENT, {"STAYLINE_CARRIER": "twilio", "TWILIO_AUTH_TOKEN": ""}, "TWILIO_AUTH_TOKEN is not set"),
        ("worker", "bad_tool:agent", {}, "parameter 'numbers' has no schema."),
        ("worker", "office:unreachable", {}, "which no carrier can dial."),
        ("worker", AGENT, {"TWILIO_AUTH_TOKEN": ""}, "Set TWILIO_ACCOUNT_SID and TWILIO_AUTH_TOKEN."),
        ("worker", AGENT, {"STAYLINE_TOOL_GRACE": "long"}, "(STAYLINE_TOOL_GRACE)"),
    ],
)
async def test_a_wrong_configuration_is_refused_before_anything_starts(
    command: str, agent: str, environment: dict[str, str], message: str, tmp_path: Path
) -> None:
    done = await refusal(command, tmp_path, agent, **environment)
    assert done.code == 2, done.err
    assert "error: " in done.err
    assert message in done.err
    assert "Traceback" not in done.err
    for begun in ("bridge_started", "worker_started"):
        assert begun not in done.err + done.out


async def test_all_that_is_wrong_is_said_at_once(tmp_path: Path) -> None:
    done = await refusal("serve", tmp_path, AGENT, DEEPGRAM_API_KEY="", OPENAI_API_KEY="", STAYLINE_MAX_CALLS="0")
    assert done.code == 2
    assert "3 things must be put right first:" in done.err
    for name in ("DEEPGRAM_API_KEY", "OPENAI_API_KEY", "max_calls"):
        assert name in done.err


# --- running ---------------------------------------------------------------------------------------------


def child(command: str, client: Client, folder: Path, address: str, **more: str) -> Child:
    environment = {
        **surroundings(),
        **SOUND,
        "STAYLINE_DATA_DIR": str(folder),
        "STAYLINE_LISTEN_ADDR": address,
        "TEMPORAL_ADDRESS": client.service_client.config.target_host,
        **more,
    }
    return Child(command, [command, "--agent", AGENT], environment, folder / f"{command}.log")


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
async def test_a_signal_ends_both_in_order(client: Client, tmp_path: Path, number: signal.Signals) -> None:
    address = f"127.0.0.1:{free_port()}"
    worker, bridge = child("worker", client, tmp_path, address), child("serve", client, tmp_path, address)
    await worker.start()
    await bridge.start()
    try:
        await worker_ready(worker, client)
        await bridge_ready(bridge, f"http://{address}")
        for process, last_words in ((bridge, "bridge_stopped"), (worker, "worker_stopping")):
            assert process.pid is not None
            os.kill(process.pid, number)
            async with asyncio.timeout(30):
                code = await process.wait()
            log = process.log.read_text()
            assert code == 0, log
            assert last_words in log
            assert "Traceback" not in log
    finally:
        for process in (bridge, worker):
            process.kill()
            await process.wait()


async def test_an_address_that_is_taken(client: Client, tmp_path: Path) -> None:
    with socket.socket() as other:
        other.bind(("127.0.0.1", 0))
        other.listen()
        address = f"127.0.0.1:{other.getsockname()[1]}"
        worker, bridge = child("worker", client, tmp_path, address), child("serve", client, tmp_path, address)
        await worker.start()
        await bridge.start()
        try:
            async with asyncio.timeout(60):
                code = await bridge.wait()
        finally:
            for process in (bridge, worker):
                process.kill()
                await process.wait()
    log = bridge.log.read_text()
    assert code == 2, log
    assert f"error: Cannot listen on {address}" in log
    assert "STAYLINE_LISTEN_ADDR" in log
    assert "Traceback" not in log

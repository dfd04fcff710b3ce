"""`stayline call --dial`, the real command: it plays the carrier and who answers; worker and bridge run here."""

from __future__ import annotations

import wave
from pathlib import Path

import pytest
from temporalio.client import Client

from activities.records import RecordActivities
from media_bridge.audio import mulaw
from media_bridge.bridge import Bridge
from stayline.commands.local import LabAccount
from stayline.lab.place import LabResult
from stayline.ports import free_port
from stayline.settings import Settings, TwilioCredentials
from stayline.worker import build_worker
from tests.fakes.sound import tone
from tests.stayline.commands.children import Finished, stayline
from tests.whole_call import agents
from tests.whole_call.house import vendors

AGENT = f"{agents.__file__}:agent"
NUMBER = "+15551234567"


def write_tone(path: Path) -> None:
    with wave.open(str(path), "wb") as file:
        file.setparams((1, 2, 8000, 0, "NONE", ""))
        file.writeframes(mulaw.decode(tone(600)).tobytes())


async def dial(folder: Path, client: Client, *arguments: str, **environment: str) -> Finished:
    return await stayline(
        "call",
        *("--dial", NUMBER, "--wav", "hum.wav", "--max-seconds", "40"),
        *arguments,
        folder=folder,
        TEMPORAL_ADDRESS=client.service_client.config.target_host,
        **environment,
    )


async def test_who_is_called_follows_a_script(
    client: Client, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    write_tone(tmp_path / "hum.wav")
    account = LabAccount.of(tmp_path / ".stayline")
    port = free_port()
    settings = Settings(listen_addr=f"127.0.0.1:{port}", data_dir=tmp_path, carrier="lab", drain_timeout=1)
    twilio = TwilioCredentials(
        account_sid=account.account_sid,
        auth_token=account.auth_token,
        base_url=f"http://127.0.0.1:{account.rest_port}",
    )
    named = {agents.agent.named("agent").name: agents.agent}
    async with (
        vendors(monkeypatch, ["who is this"], None),
        RecordActivities(settings.database) as records,
        build_worker(client, named, settings, [records.save_call], credentials=twilio),
    ):
        bridge = Bridge(settings, twilio, named, client)
        await bridge.start()
        try:
            done = await dial(tmp_path, client, "--agent", AGENT, "--bridge", settings.public, "--json")
        finally:
            await bridge.stop()
    assert done.code == 0, done.err
    result = LabResult.model_validate_json(done.out)
    assert (result.status, result.ended_by, result.streams, result.script_done) == ("completed", "caller", 1, True)
    assert "agent speaks" in done.err


async def test_what_is_missing(client: Client, tmp_path: Path) -> None:
    write_tone(tmp_path / "hum.wav")
    done = await dial(tmp_path, client)
    assert done.code == 2
    assert "error: No agent was given." in done.err


async def test_at_twilio_it_is_only_placed(client: Client, tmp_path: Path) -> None:
    """No worker runs: the call waits in Temporal. It is ended before one does."""
    done = await dial(
        tmp_path,
        client,
        "--agent",
        AGENT,
        TWILIO_ACCOUNT_SID="AC" + "2" * 32,
        TWILIO_AUTH_TOKEN="secret",
        STAYLINE_PUBLIC_URL="https://calls.example.com",
    )
    assert done.code == 0, done.err
    call_id = done.out.split()[0]
    handle = client.get_workflow_handle(f"call-{call_id}")
    assert (await handle.describe()).id == f"call-{call_id}"
    await handle.terminate()

"""Following a call that other processes hold, while one of them is killed."""

from __future__ import annotations

from pathlib import Path

from stayline.commands.local import LabAccount
from stayline.gateway import Sessions
from stayline.settings import TwilioCredentials
from tests.stayline.gateway.embedded import Listener, eventually
from tests.whole_call.stack import stack


async def test_a_call_is_followed_from_one_bridge_process_to_the_next(tmp_path: Path) -> None:
    async with stack(tmp_path, bridges=2) as place:
        twilio = TwilioCredentials(auth_token=LabAccount.of(tmp_path).auth_token)  # type: ignore[arg-type]
        caller = await place.greeted()
        processes = place.processes
        async with Sessions.open(processes.settings, client=processes.client, twilio=twilio) as sessions:
            session = await sessions.get(caller.sid)
            assert session is not None
            heard = Listener(session)
            await caller.asks("hello")
            await heard.until("user_speech_end")
            holder = processes.bridge_of(str(session.snapshot.bridge_id))
            assert holder is not None
            await place.kill_bridge(holder.name)

            async def speaks_elsewhere() -> bool:
                return any(event.attachment == 2 and event.type == "audio_sent" for event in heard.events)

            await eventually(speaks_elsewhere)
            late = Listener(session)
            await caller.hears_out()
            await caller.asks("still there")
            await session.interrupt()
            await caller.leaves()
            events = await heard.end()
            assert await late.end() == events, "what this process had read of the dead bridge is not lost"
    said = [event.data for event in events if event.type == "user_transcript"]
    assert said == ["hello", "still there"]
    assert [event.data for event in events if event.type == "agent_transcript"] == [
        "Hello there.",
        "You said hello.",
        "We got cut off.",
        "You said still there.",
    ]
    assert {event.attachment for event in events if event.type == "audio_received"} == {1, 2}
    assert [event.type.value for event in events].count("session_started") == 1
    assert events[-1].type == "session_ended"

"""One call with a scripted caller, who rings or is rung, from the first ring to the last measurement."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Sequence
from pathlib import Path
from typing import Final

from stayline.errors import ConfigError
from stayline.lab.call import Behaviour, EndedBy, LabCall
from stayline.lab.callee import Callee
from stayline.lab.caller import CallerEvent, ScriptedCaller, Utterance
from stayline.lab.carrier import LabCarrier
from stayline.lab.events import LabEvent
from stayline.lab.recording import StereoRecording
from stayline.lab.script import Step, conversation, prepare
from stayline.models import Model

CALLER: Final = "+15550100001"
CALLED: Final = "+15550100002"


class LabResult(Model):
    """How a lab call went, as its caller knows it."""

    call_sid: str
    ended_by: EndedBy
    status: str  #: Twilio's word
    seconds: float  #: connected
    error: int | None = None  #: Twilio's error code
    script_done: bool  #: the caller came to the end of the script
    streams: int = 0  #: media sockets; more than one: the call moved
    clears: int = 0
    marks: int = 0  #: echoed because they were heard
    protocol_errors: int = 0
    utterances: tuple[Utterance, ...] = ()
    recording: Path | None = None

    @property
    def reply_ms(self) -> list[int]:
        """Latencies of the replies that were heard."""
        return [u.reply_ms for u in self.utterances if u.reply_ms is not None]


async def place_call(
    bridge_url: str,
    account_sid: str,
    auth_token: str,
    *,
    from_number: str = CALLER,
    to_number: str = CALLED,
    steps: Sequence[Step] = (),
    say: Sequence[str] = (),
    wav: Path | None = None,
    voice: str = "en-US",
    recording: Path | None = None,
    max_seconds: float = 120.0,
    public_url: str = "",
    rest_host: str = "127.0.0.1",
    rest_port: int = 0,
    behaviour: Behaviour | None = None,
    on_event: Callable[[LabEvent], None] | None = None,
) -> LabResult:
    """Call a bridge and follow a script. A carrier is started for it and stopped afterwards.

    Args:
        steps, say, wav: what the caller does, one of them. `say` and `wav` are said when the agent has
            finished; after the last answer the caller hangs up. Nothing: the caller listens.
        voice: of the caller, see `stayline.lab.voice.VOICES`.
        recording: where to write both sides, stereo.
        max_seconds: after so long the caller hangs up whatever the script says.
        public_url, rest_host, rest_port, behaviour, on_event: as for `LabCarrier`.
    Raises:
        ConfigError: the script, a WAV file or the voice is not usable. Raised before the call is placed.
    """
    carrier = LabCarrier(
        bridge_url,
        account_sid,
        auth_token,
        public_url=public_url,
        rest_host=rest_host,
        rest_port=rest_port,
        behaviour=behaviour,
        on_event=on_event,
    )
    chosen = choose_steps(steps, say, wav)
    async with carrier:
        return await call_with_script(
            carrier,
            chosen,
            from_number=from_number,
            to_number=to_number,
            voice=voice,
            recording=recording,
            max_seconds=max_seconds,
        )


async def call_with_script(
    carrier: LabCarrier,
    steps: Sequence[Step],
    *,
    from_number: str = CALLER,
    to_number: str = CALLED,
    voice: str = "en-US",
    recording: Path | None = None,
    max_seconds: float = 120.0,
) -> LabResult:
    """The same with a carrier that runs already, e.g. because the worker was given its `rest_url`."""
    prepared = await prepare(steps, voice=voice)
    caller = ScriptedCaller(prepared, recording=StereoRecording(recording) if recording else None)
    call = await carrier.place_call(from_number, to_number, caller=caller)
    return await _see_out(carrier, call, caller, recording, max_seconds)


async def answer_with_script(
    carrier: LabCarrier,
    number: str,
    steps: Sequence[Step],
    place: Callable[[], Awaitable[object]],
    *,
    voice: str = "en-US",
    recording: Path | None = None,
    max_seconds: float = 120.0,
    patience: float = 30.0,
) -> LabResult:
    """Take a call that somebody else places, by REST: whoever is called follows the script.

    Args:
        place: has the call placed.
        patience: seconds until the carrier must have been asked to dial.
    Raises:
        TimeoutError: nobody asked the carrier to dial the number.
    """
    prepared = await prepare(steps, voice=voice)
    caller = ScriptedCaller(prepared, recording=StereoRecording(recording) if recording else None)
    ordered: asyncio.Future[LabCall] = asyncio.get_running_loop().create_future()

    def take(call: LabCall) -> None:
        if call.to_number == number and not ordered.done():
            ordered.set_result(call)

    carrier.on_order = take
    carrier.callees[number] = Callee(caller=lambda: caller, ring_seconds=1.0)
    await place()
    async with asyncio.timeout(patience):
        call = await ordered
    return await _see_out(carrier, call, caller, recording, max_seconds)


async def _see_out(
    carrier: LabCarrier, call: LabCall, caller: ScriptedCaller, recording: Path | None, max_seconds: float
) -> LabResult:
    def tell(kind: CallerEvent, detail: str) -> None:
        carrier.log.add(kind, detail, call_sid=call.sid)

    caller.on_event = tell
    try:
        async with asyncio.timeout(max_seconds):
            await call.wait()
    except TimeoutError:
        call.hang_up("timeout")
        await call.wait()
    return _result(carrier, call, caller, recording)


def choose_steps(steps: Sequence[Step], say: Sequence[str], wav: Path | None) -> tuple[Step, ...]:
    """The one script that was given.

    Raises:
        ConfigError: there is more than one.
    """
    if sum((bool(steps), bool(say), wav is not None)) > 1:
        raise ConfigError("The caller has more than one script.", fix="Give steps, texts or a WAV file.")
    if say:
        return conversation(say)
    if wav is not None:
        return Step(wav=wav), Step(hang_up=True)
    return tuple(steps)


def _result(carrier: LabCarrier, call: LabCall, caller: ScriptedCaller, recording: Path | None) -> LabResult:
    log = carrier.log
    return LabResult(
        call_sid=call.sid,
        ended_by=call.ended_by or "carrier",
        status=call.status,
        seconds=round(call.seconds, 3),
        error=call.error,
        script_done=caller.done,
        streams=call.streams,
        clears=len(log.of("clear", call.sid)),
        marks=sum(not event.data["cleared"] for event in log.of("mark", call.sid)),
        protocol_errors=call.protocol_errors,
        utterances=tuple(caller.utterances),
        recording=recording,
    )

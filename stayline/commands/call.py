"""`stayline call`: a simulated caller rings a bridge."""

from __future__ import annotations

import contextlib
import errno
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path

import structlog
from rich.console import Console
from rich.text import Text

from stayline.commands.local import LabAccount
from stayline.commands.terminal import clean, print_json
from stayline.errors import ConfigError, StaylineError
from stayline.lab.events import LabEvent
from stayline.lab.place import LabResult, choose_steps, place_call
from stayline.lab.script import Step, load_script
from stayline.settings import Settings, TwilioCredentials

_SHOWN = {
    "webhook": "the bridge answered",
    "stream_opened": "stream opened",
    "stream_refused": "stream refused",
    "stream_broken": "stream broke off",
    "caller_speaks": "caller",
    "agent_speaks": "agent speaks",
    "clear": "agent stops: the caller has the floor",
    "dial": "dialling",
    "rest": "REST request",
    "error": "carrier error",
    "hang_up": "hang-up",
    "ended": "call ended",
}


async def run_call(
    settings: Settings,
    *,
    say: Sequence[str],
    wav: Path | None,
    script: Path | None,
    bridge: str,
    to: str,
    from_number: str,
    record: Path | None,
    max_seconds: float,
    as_json: bool,
) -> int:
    """Place the call and print what its caller hears of it. Returns the exit code: 0 if the call was held.

    Raises:
        ConfigError: the script is not usable.
        StaylineError: no bridge took the call, or another call has the lab's port.
    """
    structlog.configure(wrapper_class=structlog.make_filtering_bound_logger(40))
    account = lab_account(settings)
    console = Console(stderr=as_json, highlight=False)
    steps = read_steps(say, wav, script)
    with port_taken(account):
        result = await place_call(
            bridge,
            account.account_sid,
            account.auth_token,
            from_number=from_number,
            to_number=to,
            steps=steps,
            recording=record,
            max_seconds=max_seconds,
            rest_port=account.rest_port,
            on_event=shown_on(console),
        )
    show_result(console, result, result.call_sid, as_json=as_json)
    if _unanswered(result):
        raise StaylineError(
            f"No bridge at {bridge} took the call.",
            fix="Start one with `stayline dev` or `stayline serve`, and give its origin with --bridge.",
        )
    return exit_code(result)


def read_steps(say: Sequence[str], wav: Path | None, script: Path | None) -> tuple[Step, ...]:
    """What the simulated person does.

    Raises:
        ConfigError: nothing, or more than one thing, or it is not usable.
    """
    steps = load_script(script) if script else ()
    if not (say or wav or steps):
        raise ConfigError("The caller has nothing to say.", fix="Give --say TEXT, --wav FILE or --script FILE.")
    return choose_steps(steps, say, wav)


@contextlib.contextmanager
def port_taken(account: LabAccount) -> Iterator[None]:
    """Say what it means that the carrier's port is in use."""
    try:
        yield
    except OSError as error:
        if error.errno != errno.EADDRINUSE:
            raise
        raise StaylineError(
            f"The carrier's port {account.rest_port} is taken, where workers hang calls up.",
            fix="Another `stayline call` may be on; wait for its end.",
        ) from error


def shown_on(console: Console) -> Callable[[LabEvent], None]:
    """Prints what happens, as it happens."""

    def show(event: LabEvent) -> None:
        if event.kind in _SHOWN:
            console.print(Text(f"{event.seconds:7.1f}  {_SHOWN[event.kind]:<14} {clean(event.detail)}"))

    return show


def show_result(console: Console, result: LabResult, call_id: str, *, as_json: bool) -> None:
    if as_json:
        print_json(result)
        return
    replies = ", ".join(f"{ms} ms" for ms in result.reply_ms) or "none"
    console.print(f"\n{call_id}: {result.status}, {result.seconds:.1f} s. Replies after: {replies}.")
    if not _unanswered(result):
        console.print(f"Read it with: stayline calls show {call_id}")


def exit_code(result: LabResult) -> int:
    """0 if the call was held."""
    return 0 if result.status == "completed" and result.streams else 1


def _unanswered(result: LabResult) -> bool:
    """The first webhook already got no answer, or none that a carrier can follow: there is no call to read of."""
    return result.status == "failed" and not result.streams


def lab_account(settings: Settings) -> LabAccount:
    """Twilio's credentials if they are set, else those of the lab on this machine."""
    twilio = TwilioCredentials()
    token = twilio.auth_token.get_secret_value()
    if twilio.account_sid and token:
        port = twilio.base_url.rpartition(":")[2].rstrip("/")
        return LabAccount(
            account_sid=twilio.account_sid, auth_token=token, rest_port=int(port) if port.isdigit() else 0
        )
    return LabAccount.of(settings.data_dir)

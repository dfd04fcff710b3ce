"""`stayline call`: a simulated caller rings a bridge."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import structlog
from rich.console import Console
from rich.text import Text

from stayline.commands.local import LabAccount
from stayline.commands.terminal import clean, print_json
from stayline.errors import ConfigError
from stayline.lab.events import LabEvent
from stayline.lab.place import place_call
from stayline.lab.script import load_script
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
        ConfigError: the script is not usable, or no credentials are known for signing the webhooks.
    """
    structlog.configure(wrapper_class=structlog.make_filtering_bound_logger(40))
    account = _account(settings)
    console = Console(stderr=as_json, highlight=False)

    def show(event: LabEvent) -> None:
        if event.kind in _SHOWN:
            console.print(Text(f"{event.seconds:7.1f}  {_SHOWN[event.kind]:<14} {clean(event.detail)}"))

    steps = load_script(script) if script else ()
    if not (say or wav or steps):
        raise ConfigError("The caller has nothing to say.", fix="Give --say TEXT, --wav FILE or --script FILE.")
    result = await place_call(
        bridge,
        account.account_sid,
        account.auth_token,
        from_number=from_number,
        to_number=to,
        steps=steps,
        say=say,
        wav=wav,
        recording=record,
        max_seconds=max_seconds,
        rest_port=account.rest_port,
        on_event=show,
    )
    if as_json:
        print_json(result)
    else:
        replies = ", ".join(f"{ms} ms" for ms in result.reply_ms) or "none"
        console.print(f"\n{result.call_sid}: {result.status}, {result.seconds:.1f} s. Replies after: {replies}.")
        console.print(f"Read it with: stayline calls show {result.call_sid}")
    return 0 if result.status == "completed" and result.streams else 1


def _account(settings: Settings) -> LabAccount:
    """Twilio's credentials if they are set, else those of the lab on this machine."""
    twilio = TwilioCredentials()
    token = twilio.auth_token.get_secret_value()
    if twilio.account_sid and token:
        port = twilio.base_url.rpartition(":")[2].rstrip("/")
        return LabAccount(
            account_sid=twilio.account_sid, auth_token=token, rest_port=int(port) if port.isdigit() else 0
        )
    return LabAccount.of(settings.data_dir)

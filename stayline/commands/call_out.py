"""`stayline call --dial`: an agent calls somebody, at Twilio or, where it is not set up, at the lab carrier."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import structlog
from rich.console import Console

from stayline.agent import Agent, load_agents
from stayline.commands.call import exit_code, lab_account, port_taken, read_steps, show_result, shown_on
from stayline.commands.terminal import print_json
from stayline.errors import ConfigError, StaylineError
from stayline.lab.carrier import LabCarrier
from stayline.lab.place import answer_with_script
from stayline.messages import Dial
from stayline.outbound import place_call
from stayline.settings import Settings, TwilioCredentials
from stayline.temporal import connect


async def run_call_out(
    settings: Settings,
    references: Sequence[str],
    number: str,
    *,
    say: Sequence[str],
    wav: Path | None,
    script: Path | None,
    bridge: str,
    from_number: str,
    record: Path | None,
    max_seconds: float,
    as_json: bool,
) -> int:
    """Have the agent call `number`. At Twilio this returns when the call is placed; in the lab, when it is over.

    Raises:
        ConfigError: the agent, the number or the script is not usable.
        StaylineError: Temporal does not answer, no worker placed the call, or another call has the lab's port.
    """
    structlog.configure(wrapper_class=structlog.make_filtering_bound_logger(40))
    agent = _agent(references or settings.agents)
    twilio = TwilioCredentials()
    if twilio.account_sid and not twilio.base_url:
        token = twilio.auth_token.get_secret_value()
        sender = twilio.phone_number or from_number
        client = await connect(settings)
        call_id = await place_call(
            client, settings, agent, number, from_number=sender, dial=Dial(), auth_token=token
        )
        if as_json:
            print_json({"call_id": call_id})
        else:
            print(f"{call_id} is placed. Follow it with: stayline calls watch {call_id}")
        return 0
    account = lab_account(settings)
    steps = read_steps(say, wav, script)
    console = Console(stderr=as_json, highlight=False)
    lab = settings.model_copy(update={"carrier": "lab", "public_url": bridge})
    client = await connect(settings)
    placed: list[str] = []

    async def place() -> None:
        placed.append(
            await place_call(
                client, lab, agent, number, from_number=from_number, dial=Dial(), auth_token=account.auth_token
            )
        )

    with port_taken(account):
        async with LabCarrier(
            bridge,
            account.account_sid,
            account.auth_token,
            rest_port=account.rest_port,
            on_event=shown_on(console),
        ) as carrier:
            try:
                result = await answer_with_script(
                    carrier, number, steps, place, recording=record, max_seconds=max_seconds
                )
            except TimeoutError as error:
                raise StaylineError(
                    "No worker had the carrier dial.",
                    fix=f"Are a worker and a bridge up? See: stayline calls show {placed[-1]}" if placed else "",
                ) from error
    show_result(console, result, placed[-1], as_json=as_json)
    return exit_code(result)


def _agent(references: Sequence[str]) -> Agent:
    agents = load_agents(references)
    if len(agents) != 1:
        raise ConfigError("It must be said which agent calls.", fix="Give one --agent module:variable.")
    [agent] = agents.values()
    return agent

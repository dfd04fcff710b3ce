"""`stayline calls`: see calls, steer them, take them along. Each command is a shell around `calls_*.py`."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from stayline.commands.terminal import EXIT_REFUSED, UsageError, out, print_json, run

if TYPE_CHECKING:
    from temporalio.client import WorkflowHistory

    from stayline.messages import Command
    from stayline.settings import Settings

calls_app = typer.Typer(
    help="See calls, steer them, replay them. CALL_ID may be the beginning of an id, or `last`.",
    no_args_is_help=True,
)

CallId = Annotated[str, typer.Argument(metavar="CALL_ID", help="An id, its beginning, or `last`.")]
Json = Annotated[bool, typer.Option("--json", help="Print JSON.")]
Why = Annotated[str, typer.Option("--why", help="Why, for the record.")]


@calls_app.command("list")
def list_(
    limit: Annotated[int, typer.Option("--limit", "-n", min=1, max=1000, help="How many.")] = 20,
    live: Annotated[bool, typer.Option("--live", help="Only calls that are going on.")] = False,
    agent: Annotated[str | None, typer.Option(help="Only calls of this agent.")] = None,
    outcome: Annotated[str | None, typer.Option(help="Only calls that ended so, e.g. transferred.")] = None,
    status: Annotated[str | None, typer.Option(help="Only calls that stand so, e.g. active.")] = None,
    since: Annotated[str | None, typer.Option(help="Begun since: 30m, 2h, 7d, or a date and time.")] = None,
    before: Annotated[str | None, typer.Option(help="Begun before: likewise.")] = None,
    as_json: Json = False,
) -> None:
    """Live and ended calls, newest first."""

    async def work(settings: Settings) -> None:
        from stayline.commands.calls_find import open_calls
        from stayline.commands.calls_listed import read_filters
        from stayline.commands.calls_print import print_list

        filters = read_filters(
            limit=limit, live=live, agent=agent, outcome=outcome, status=status, since=since, before=before
        )
        async with open_calls(settings) as calls:
            listed = await calls.list_calls(filters)
            if as_json:
                print_json(listed)
            else:
                print_list(out(), listed)
            # On standard error: the answer itself stays readable by programs.
            for error in calls.away:
                typer.echo(f"note: {error.message} Calls that only it knows are missing.", err=True)

    _run(work)


@calls_app.command()
def show(call: CallId, as_json: Json = False) -> None:
    """A call as one would tell it: who said what when, tools and their attempts, what broke, the metrics."""

    async def work(settings: Settings) -> None:
        from stayline.commands.calls_find import SOURCES, open_calls
        from stayline.commands.show import print_call

        async with open_calls(settings) as calls:
            found = await calls.read(await calls.resolve(call))
            if as_json:
                print_json(found)
            else:
                print_call(
                    out(), found.record, source=SOURCES[found.source], retried=found.retried, ui_url=found.ui_url
                )
            if calls.away and not found.record.final:
                typer.echo(f"note: {calls.away[0].message} There may be a later record of this call.", err=True)

    _run(work)


@calls_app.command()
def watch(call: CallId, as_json: Json = False) -> None:
    """Follow a call live until it ends. With --json, one JSON object a line."""

    async def work(settings: Settings) -> None:
        from stayline.commands.calls_find import open_calls
        from stayline.commands.calls_watch import CallWatcher, LivePrinter, json_line

        async with open_calls(settings) as calls:
            client = calls.client
            call_id = await calls.resolve(call, live=True)
            emit = json_line if as_json else LivePrinter(out())
            await CallWatcher(client, call_id, emit).run()

    _run(work)


@calls_app.command()
def transfer(
    call: CallId,
    to: Annotated[str, typer.Argument(help="+15551234567, sip:desk@example.com, or a name the agent knows.")],
    say: Annotated[str | None, typer.Option(help="The announcement; default: the agent's.")] = None,
    why: Why = "",
) -> None:
    """Connect the caller to somebody else."""
    from stayline.commands.calls_steer import here, transfer_target
    from stayline.messages import TransferCall

    async def work(settings: Settings) -> None:
        command = TransferCall(to=transfer_target(to), say=say, by=here(), why=why)
        await _steer(settings, call, command, f"is being transferred to {command.to}")

    _run(work)


@calls_app.command()
def end(
    call: CallId,
    say: Annotated[str | None, typer.Option(help='The last words; default: the agent\'s. "" for none.')] = None,
    why: Why = "",
) -> None:
    """Say goodbye and hang up."""
    from stayline.commands.calls_steer import here
    from stayline.messages import EndCall

    async def work(settings: Settings) -> None:
        await _steer(settings, call, EndCall(say=say, by=here(), why=why), "is being ended")

    _run(work)


@calls_app.command()
def say(call: CallId, text: Annotated[str, typer.Argument(help="What the agent says.")], why: Why = "") -> None:
    """Have the agent say something."""
    from stayline.commands.calls_steer import here
    from stayline.messages import SayText

    async def work(settings: Settings) -> None:
        await _steer(settings, call, SayText(text=text, by=here(), why=why), "will hear it")

    _run(work)


@calls_app.command()
def approve(
    call: CallId,
    tool_call: Annotated[
        str | None, typer.Argument(help="Id of the tool call; default: the one that waits.")
    ] = None,
    refuse: Annotated[bool, typer.Option("--refuse", help="Refuse it instead.")] = False,
    why: Why = "",
) -> None:
    """Release a tool call that waits for a person, or refuse it."""

    async def work(settings: Settings) -> None:
        from stayline.commands.calls_find import open_calls
        from stayline.commands.calls_steer import here, steer, waiting_tool
        from stayline.messages import Approve

        async with open_calls(settings) as calls:
            client = calls.client
            call_id = await calls.resolve(call, live=True)
            tool = tool_call or await waiting_tool(client, call_id)
            command = Approve(tool_call_id=tool, approved=not refuse, by=here(), why=why)
            await steer(client, call_id, command)
            out().print(f"Call {call_id}: tool call {tool} is {'refused' if refuse else 'approved'}.")

    _run(work)


@calls_app.command()
def replay(
    call: Annotated[str, typer.Argument(metavar="CALL_ID|FILE.json", help="A call, or an exported history.")],
    as_json: Json = False,
) -> None:
    """Run today's workflow code over a recorded call, and say where it would differ."""

    async def work(settings: Settings) -> None:
        from stayline.commands.calls_print import print_replay
        from stayline.commands.calls_replay import read_history, replay
        from stayline.temporal import converter_for

        converter = converter_for(settings)
        if Path(call).suffix == ".json" or await asyncio.to_thread(Path(call).is_file):
            histories = [await asyncio.to_thread(read_history, Path(call))]
        else:
            histories = await _histories(settings, call)
        reports = await replay(histories, converter=converter)
        if as_json:
            print_json([{"ok": report.ok, **report.model_dump()} for report in reports])
        else:
            print_replay(out(), reports)
        if not all(report.ok for report in reports):
            raise typer.Exit(EXIT_REFUSED)

    _run(work)


@calls_app.command()
def export(
    call: CallId,
    to: Annotated[Path | None, typer.Option("--out", "-o", help="A file; default: standard output.")] = None,
    record: Annotated[bool, typer.Option("--record", help="The call's record instead of its history.")] = False,
) -> None:
    """Write a call's history as JSON, as Temporal's own tools read it; or its record."""

    async def work(settings: Settings) -> None:
        if record:
            from stayline.commands.calls_find import open_calls

            async with open_calls(settings) as calls:
                found = await calls.read(await calls.resolve(call))
            texts = [found.record.model_dump_json(indent=2)]
        else:
            texts = [history.to_json() for history in await _histories(settings, call)]
        await asyncio.to_thread(_write, texts, to)

    _run(work)


# --- shared by the commands ------------------------------------------------------------------------------


def _run(work: Callable[[Settings], Awaitable[None]]) -> None:
    """Read the settings and run the command; every error that is meant for people ends it as such."""

    async def all_of_it() -> None:
        from stayline.settings import load_settings

        await work(load_settings())

    run(all_of_it())


async def _steer(settings: Settings, given: str, command: Command, told: str) -> None:
    from stayline.commands.calls_find import open_calls
    from stayline.commands.calls_steer import steer

    async with open_calls(settings) as calls:
        client = calls.client  # the database cannot steer a call: say first that Temporal is away
        call_id = await calls.resolve(given, live=True)
        await steer(client, call_id, command)
    out().print(f"Call {call_id} {told}.")


async def _histories(settings: Settings, given: str) -> list[WorkflowHistory]:
    from stayline.commands.calls_find import open_calls
    from stayline.commands.calls_replay import fetch_histories

    async with open_calls(settings) as calls:
        client = calls.client
        return await fetch_histories(client, await calls.resolve(given))


def _write(texts: Sequence[str], to: Path | None) -> None:
    """Write one file; a call that continued as new has several histories, and so several numbered files."""
    if to is None:
        for text in texts:
            typer.echo(text)
        return
    for number, text in enumerate(texts, 1):
        path = to if len(texts) == 1 else to.with_name(f"{to.stem}.{number}{to.suffix}")
        try:
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_text(text + "\n", encoding="utf-8")
        except OSError as error:
            raise UsageError(f"{path} cannot be written: {error.strerror}.") from error
        typer.echo(f"Wrote {path}.", err=True)

"""The `stayline` command. Every subcommand imports what it needs when it runs, so that `--help` is quick."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from stayline import startup
from stayline.commands.terminal import run
from stayline.errors import StaylineError

if TYPE_CHECKING:
    from stayline.settings import Settings

app = typer.Typer(
    name="stayline",
    help="Phone calls with AI that do not get lost: every call is a Temporal workflow.",
    no_args_is_help=True,
    pretty_exceptions_enable=False,
    rich_markup_mode="rich",
)

Agents = Annotated[
    list[str] | None, typer.Option("--agent", "-a", help="module:variable or file.py:variable; may be repeated.")
]


def _settings() -> Settings:
    from stayline.commands.terminal import fail
    from stayline.settings import load_settings

    try:
        return load_settings()
    except StaylineError as error:
        raise fail(error) from error


@app.command()
def demo(
    crash: Annotated[bool, typer.Option(help="Kill the bridge with SIGKILL in mid-call.")] = False,
    keep: Annotated[bool, typer.Option(help="Leave everything running until Ctrl-C.")] = False,
    as_json: Annotated[bool, typer.Option("--json", help="Print the call's record as JSON at the end.")] = False,
) -> None:
    """Place a whole call on this machine: no key, no account, real speech, real Temporal."""
    from stayline.commands.demo import run_demo

    raise typer.Exit(run(run_demo(_settings(), crash=crash, keep=keep, as_json=as_json)))


@app.command()
def dev(
    agent: Agents = None,
    reload: Annotated[bool, typer.Option(help="Restart worker and bridge when a Python file changes.")] = True,
) -> None:
    """Everything in one command for your own agent: Temporal, a worker, a bridge, and reload."""
    from stayline.commands.dev import run_dev

    run(run_dev(_settings(), agent or [], reload=reload))


@app.command()
def serve(agent: Agents = None) -> None:
    """Run a media bridge: the process that holds live calls."""
    startup.beside("aiohttp.web")
    from stayline.commands.serving import serve as serving

    run(serving(_settings(), agent or []), holds_audio=True, long_start=True)


@app.command()
def worker(agent: Agents = None) -> None:
    """Run a worker: call workflows, tools, carrier requests and call records."""
    from stayline.commands.serving import work

    run(work(_settings(), agent or []), long_start=True)


@app.command()
def call(
    say: Annotated[list[str] | None, typer.Option(help="What the caller says, in turn; may be repeated.")] = None,
    wav: Annotated[Path | None, typer.Option(help="A WAV file that the caller plays.")] = None,
    script: Annotated[Path | None, typer.Option(help="A YAML file of caller steps.")] = None,
    bridge: Annotated[str, typer.Option(help="Origin of the bridge.")] = "http://127.0.0.1:8080",
    to: Annotated[str, typer.Option(help="The number called.")] = "+15550100002",
    from_: Annotated[str, typer.Option("--from", help="The caller's number.")] = "+15550100001",
    record: Annotated[Path | None, typer.Option(help="Write both sides to this WAV file.")] = None,
    max_seconds: Annotated[float, typer.Option(help="Hang up after this long.")] = 120.0,
    as_json: Annotated[bool, typer.Option("--json", help="Print the result as JSON.")] = False,
    dial: Annotated[
        str | None,
        typer.Option(
            help="Have the agent call this number: at Twilio if it is set up, else who answers is simulated."
        ),
    ] = None,
    agent: Agents = None,
) -> None:
    """Place a lab call against a bridge, from typed text, a WAV file or a script; or have an agent call."""
    if dial is not None:
        from stayline.commands.call_out import run_call_out

        raise typer.Exit(
            run(
                run_call_out(
                    _settings(),
                    agent or [],
                    dial,
                    say=say or [],
                    wav=wav,
                    script=script,
                    bridge=bridge,
                    from_number=from_,
                    record=record,
                    max_seconds=max_seconds,
                    as_json=as_json,
                )
            )
        )
    from stayline.commands.call import run_call

    raise typer.Exit(
        run(
            run_call(
                _settings(),
                say=say or [],
                wav=wav,
                script=script,
                bridge=bridge,
                to=to,
                from_number=from_,
                record=record,
                max_seconds=max_seconds,
                as_json=as_json,
            )
        )
    )


@app.command()
def doctor(
    agent: Agents = None,
    as_json: Annotated[bool, typer.Option("--json", help="Print the findings as JSON.")] = False,
) -> None:
    """Check configuration, keys, Temporal, the public URL and the speech engines; say what to fix."""
    from stayline.commands.doctor import run_doctor

    raise typer.Exit(run(run_doctor(agent or [], _settings(), as_json)))


@app.command()
def codec() -> None:
    """Let Temporal's UI and command line read encrypted payloads: a codec server."""
    from stayline.commands.codec import run_codec

    run(run_codec(_settings()))


def main() -> None:
    """Entry point of the `stayline` script."""
    startup.begin()
    from stayline.commands.calls import calls_app

    app.add_typer(calls_app, name="calls")
    with startup.last_of_all():
        app()

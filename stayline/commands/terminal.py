"""What every command does with a terminal: where it prints, how values look, how a failure ends the command."""

from __future__ import annotations

import asyncio
import sys
from collections.abc import Coroutine
from datetime import UTC, datetime, tzinfo
from typing import TYPE_CHECKING, Any, TypeVar

import typer

from stayline import event_loop, startup
from stayline.errors import ConfigError, StaylineError

if TYPE_CHECKING:
    from rich.console import Console

T = TypeVar("T")

EXIT_REFUSED = 1
"""What was asked was understood, but refused or impossible now."""
EXIT_USAGE = 2
"""What was asked makes no sense: a wrong id, number, option or setting."""


class UsageError(StaylineError):
    """The command was given something that does not exist or cannot be read."""


def out() -> Console:
    """The console for results. Made when it is used, so that redirection is seen."""
    from rich.console import Console

    return Console(highlight=False)


def fail(error: StaylineError) -> typer.Exit:
    """Print what happened and what to do about it on standard error; the caller raises what it returns."""
    from rich.console import Console
    from rich.text import Text

    console = Console(stderr=True, highlight=False)
    message = "\n".join(clean(line) for line in error.message.splitlines())
    console.print(Text.assemble(("error: ", "bold red"), message), soft_wrap=True)
    if error.fix:
        console.print(Text(f"       {clean(error.fix)}"), soft_wrap=True)
    return typer.Exit(EXIT_USAGE if isinstance(error, UsageError | ConfigError) else EXIT_REFUSED)


def run(work: Coroutine[Any, Any, T], *, holds_audio: bool = False, long_start: bool = False) -> T:
    """Run a command's coroutine to its end; errors that are meant for people end the command as such.

    Args:
        long_start: it says itself when it has started (`startup.over`).
    """
    if not long_start:
        startup.over()
    try:
        return event_loop.run(work) if holds_audio else asyncio.run(work)
    except StaylineError as error:
        raise fail(error) from error
    except KeyboardInterrupt:
        raise typer.Exit(130) from None
    except BrokenPipeError:  # the reader of our output (`| head`) has seen enough
        sys.stderr.close()
        raise typer.Exit(0) from None


def print_json(value: object) -> None:
    """Print a value as indented JSON. Nothing else may go to standard output with it."""
    from pydantic_core import to_json

    sys.stdout.write(to_json(value, indent=2).decode() + "\n")
    sys.stdout.flush()


def clean(text: str) -> str:
    """Text from outside, made safe to print: one line, no control characters, no change of direction.

    A caller's words or a tool's result could otherwise move the cursor or hide what was said.
    """
    return "".join(c if c.isprintable() or c in _JOINERS else " " for c in text if c not in _BIDI).strip()


_BIDI = frozenset("\u202a\u202b\u202c\u202d\u202e\u2066\u2067\u2068\u2069\u200e\u200f")
_JOINERS = frozenset("\u200c\u200d")  # emoji and Persian need them; they show as nothing


def offset(at: datetime, start: datetime) -> str:
    """Where in the call something was: `0:09.2`, `1:02:03.4`."""
    tenths = max(0, round((at - start).total_seconds() * 10))
    minutes, rest = divmod(tenths, 600)
    clock = f"{minutes // 60}:{minutes % 60:02d}" if minutes >= 60 else str(minutes)
    return f"{clock}:{rest / 10:04.1f}"


def duration(seconds: float) -> str:
    """`0.4 s`, `42 s`, `2 min 1 s`, `1 h 4 min`."""
    if seconds < 10:
        return f"{seconds:.1f} s"
    whole = round(seconds)
    if whole < 60:
        return f"{whole} s"
    if whole < 3600:
        return f"{whole // 60} min {whole % 60} s"
    return f"{whole // 3600} h {whole % 3600 // 60} min"


def clock(at: datetime, zone: tzinfo | None = None) -> str:
    """A moment in the reader's time zone: `2026-11-22 09:41:07 UTC`."""
    local = at.astimezone(zone)
    return f"{local:%Y-%m-%d %H:%M:%S} {local.tzname() or ''}".rstrip()


def now() -> datetime:
    return datetime.now(UTC)


def count(number: int, one: str, many: str = "") -> str:
    """`1 turn`, `2 turns`."""
    return f"{number} {one if number == 1 else many or one + 's'}"

"""Commands in the documentation exist, take these arguments and have these options."""

from __future__ import annotations

import re
import shlex
import subprocess
import sysconfig
from collections.abc import Iterator
from functools import cache
from pathlib import Path
from typing import Any

import pytest
import typer

from stayline.commands.calls import calls_app
from stayline.commands.main import app
from tests.docs.markdown import DOCUMENTS, all_blocks, checked_tables, prose

_ASSIGNMENT = re.compile(r"[A-Z_]+=")
_OPTION = re.compile(r"--[a-z][a-z-]*")


def shell_lines(program: str) -> list[Any]:
    """Lines of `sh` blocks that run a program: its arguments."""
    found = []
    for block in all_blocks("sh"):
        for line in block.text.splitlines():
            words = shlex.split(line, comments=True)
            while words and _ASSIGNMENT.match(words[0]):
                words.pop(0)
            if words and words[0] == program:
                found.append(pytest.param(words[1:], id=f"{block.file.name}: {' '.join(words)}"))
    return found


@cache
def leaves() -> dict[str, Any]:
    """Every command by its words, as typer made it."""
    top = dict(_leaves("stayline", typer.main.get_command(app)))
    return top | dict(_leaves("stayline calls", typer.main.get_command(calls_app)))


def _leaves(name: str, command: Any) -> Iterator[tuple[str, Any]]:
    if not hasattr(command, "commands"):
        yield name, command
        return
    for word, below in command.commands.items():
        yield from _leaves(f"{name} {word}", below)


def command_of(arguments: list[str]) -> tuple[str, Any, list[str]]:
    for words in (2, 1):
        name = " ".join(["stayline", *arguments[:words]])
        if name in leaves():
            return name, leaves()[name], arguments[words:]
    raise AssertionError(f"there is no command `stayline {' '.join(arguments)}`")


def options_of(command: Any) -> list[set[str]]:
    """Long names of each option; a flag may have two."""
    given = (p for p in command.params if p.param_type_name == "option" and p.name != "help")
    return [{name for name in (*p.opts, *p.secondary_opts) if name.startswith("--")} for p in given]


@pytest.mark.parametrize("arguments", shell_lines("stayline"))
def test_stayline_lines_parse(arguments: list[str]) -> None:
    name, command, rest = command_of(arguments)
    command.make_context(name, rest)


@pytest.mark.parametrize("file", DOCUMENTS, ids=lambda file: file.name)
def test_commands_named_in_the_text_exist(file: Path) -> None:
    for code in re.findall(r"`(stayline\s[^`]+)`", prose(file)):
        _, command, rest = command_of(code.split()[1:])
        known = set().union(*options_of(command))
        assert set(_OPTION.findall(" ".join(rest))) <= known, code


def test_the_table_of_commands_is_complete() -> None:
    (table,) = (table for table in checked_tables() if table.what == "commands")
    assert list(table.rows) == list(leaves()), "the same commands in the same order"
    for name, (_, listed, _) in table.rows.items():
        written = set(_OPTION.findall(listed))
        options = options_of(leaves()[name])
        assert written <= set().union(*options), name
        for option in options:
            assert option & written, f"{name}: {option} is not in the table"


@pytest.mark.parametrize("arguments", shell_lines("temporal"))
def test_temporals_own_command_takes_these_flags(arguments: list[str]) -> None:
    flags = [word for word in arguments if word.startswith("-")]
    words = arguments[: arguments.index(flags[0])] if flags else arguments
    asked = subprocess.run(
        [Path(sysconfig.get_path("scripts")) / "temporal", *words, "--help"],
        capture_output=True,
        text=True,
        timeout=30,
    )
    assert asked.returncode == 0, asked.stderr
    assert f"temporal {' '.join(words)}" in asked.stdout
    for flag in flags:
        assert re.search(rf"^ +(-\w, )?{re.escape(flag)}[ ,]", asked.stdout, flags=re.MULTILINE), flag

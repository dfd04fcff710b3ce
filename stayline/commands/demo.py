"""`stayline demo`: a whole durable call on this machine, and what it looks like.

Temporal's dev server, a worker and a bridge run as separate processes; the lab's carrier and its caller, who
speaks, run here. With `crash` a second bridge stands by, and the one that holds the call is killed with SIGKILL.
"""

from __future__ import annotations

import asyncio
import contextlib
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Final

import aiohttp
import structlog
from rich.console import Console
from rich.text import Text
from temporalio.client import Client

import stayline
from stayline.commands.calls_watch import CallWatcher, Happened, LivePrinter, WatchEvent
from stayline.commands.local import LabAccount, LocalStack
from stayline.commands.show import header, metrics_table
from stayline.commands.terminal import clean, print_json
from stayline.errors import StaylineError
from stayline.lab.carrier import LabCarrier
from stayline.lab.events import LabEvent
from stayline.lab.place import LabResult, call_with_script
from stayline.lab.script import load_script
from stayline.names import call_workflow_id
from stayline.ports import free_port
from stayline.settings import Settings
from stayline.temporal import ui_url
from stayline.timeline import CallRecord, CallSnapshot, SessionClosed, TimelineEntry, UserTurn

CRASH_AFTER_TURNS: Final = 2
"""The bridge is killed when the caller has had this many turns: in the middle of the conversation."""
MAX_SECONDS: Final = 150.0

_LAB_LINES: Final = {
    "first_audio": ("carrier", "the caller hears the agent", "dim"),
    "stream_broken": ("carrier", "the audio stream broke off", "red"),
    "clear": ("carrier", "the caller speaks over the agent: playback cleared", "dim"),
    "error": ("carrier", "carrier error", "red"),
}


def demo_folder() -> Path:
    """Where the demo's agent, scenario and caller are: beside the package, or inside it when installed.

    Raises:
        StaylineError
    """
    package = Path(stayline.__file__).parent
    for folder in (package.parent / "examples" / "demo", package / "examples" / "demo"):
        if (folder / "agent.py").is_file():
            return folder
    raise StaylineError("The demo's files are not installed.", fix="Run it from a checkout: make demo.")


async def run_demo(settings: Settings, *, crash: bool, keep: bool, as_json: bool) -> int:
    """Place the demo call. Returns 0 when the call was held to its end, else 1.

    Raises:
        StaylineError: something did not start; says what, and where its log is.
    """
    structlog.configure(wrapper_class=structlog.make_filtering_bound_logger(40))
    console = Console(stderr=as_json, highlight=False)
    folder = demo_folder()
    live = _Live(console)
    account = LabAccount.of(settings.data_dir).model_copy(update={"rest_port": free_port()})
    listen = f"127.0.0.1:{free_port()}"
    console.print("[bold]Stayline[/bold]: a durable phone call, on this machine only\n")
    async with (
        LabCarrier(
            f"http://{listen}",
            account.account_sid,
            account.auth_token,
            rest_port=account.rest_port,
            on_event=live.from_lab,
        ) as carrier,
        LocalStack(
            settings,
            [f"{folder / 'agent.py'}:agent"],
            account,
            carrier.rest_url,
            bridges=2 if crash else 1,
            listen_addr=listen,
        ) as stack,
    ):
        await _start(console, stack)
        console.print("[dim]The caller now rings and speaks; nobody helps.[/dim]\n")
        result = await _place(stack, carrier, folder / "caller.yaml", live, crash=crash)
        record = await _record(stack.client, result.call_sid)
        _report(console, stack.client, record, result)
        await _check_ui(stack)
        if as_json:
            print_json(record)
        if keep:
            await _keep(console, stack)
    held = record.snapshot.outcome in ("completed", "caller_hung_up") and result.script_done
    return 0 if held else 1


async def _start(console: Console, stack: LocalStack) -> None:
    with _step(console, "Temporal's dev server"):
        await stack.start_temporal()
    bridges = "a bridge" if stack.count == 1 else f"{stack.count} bridges"
    with _step(console, f"a worker and {bridges}, each a process of its own"):
        await stack.start_worker()
        await stack.start_bridges()
        await stack.ready()


async def _place(stack: LocalStack, carrier: LabCarrier, script: Path, live: _Live, *, crash: bool) -> LabResult:
    """Hold the call, showing it live, until its workflow has ended too."""
    recording = stack.settings.data_dir / "recordings" / "demo-caller.wav"
    recording.parent.mkdir(parents=True, exist_ok=True)
    calling = asyncio.create_task(
        call_with_script(carrier, load_script(script), recording=recording, max_seconds=MAX_SECONDS)
    )
    tasks: list[asyncio.Task[object]] = [calling]
    try:
        call_id = (await carrier.log.wait_for("call", timeout=60)).call_sid
        watcher = CallWatcher(stack.client, call_id, live.from_call, appears_within=15)
        watching = asyncio.create_task(watcher.run())
        tasks.append(watching)
        if crash:
            tasks.append(asyncio.create_task(_crash(stack, call_id, live)))
        result = await calling
        await watching
        async with asyncio.timeout(60):
            await stack.client.get_workflow_handle(call_workflow_id(call_id)).result()
        return result
    finally:
        for task in tasks:
            task.cancel()


async def _keep(console: Console, stack: LocalStack) -> None:
    console.print(
        f"\nEverything is left running. Temporal: {stack.dev_server.address}, bridge: {stack.url}.\n"
        f"Try: TEMPORAL_ADDRESS={stack.dev_server.address} .venv/bin/stayline calls show last\n"
        f'     .venv/bin/stayline call --bridge {stack.url} --say "Where is my order?"\n'
        "Ctrl-C stops it."
    )
    with contextlib.suppress(asyncio.CancelledError):
        await stack.tell_of_deaths(console)


class _Live:
    """Prints the call as it happens, from the workflow and from the carrier."""

    def __init__(self, console: Console) -> None:
        self._printer = LivePrinter(console, show_header=False)
        self.turns = 0
        self.turned = asyncio.Event()

    def from_call(self, event: WatchEvent) -> None:
        self._printer(event)
        if isinstance(event, Happened) and isinstance(event.entry.event, UserTurn):
            self.turns += 1
            if self.turns >= CRASH_AFTER_TURNS:
                self.turned.set()

    def from_lab(self, event: LabEvent) -> None:
        if event.kind in _LAB_LINES:
            who, text, style = _LAB_LINES[event.kind]
            self.say(who, f"{text} {clean(event.detail)}".strip(), style)

    def say(self, who: str, text: str, style: str) -> None:
        self._printer.say(who, Text(text, style))


async def _crash(stack: LocalStack, call_id: str, live: _Live) -> None:
    """Kill the bridge that holds the call, as a crash would."""
    await live.turned.wait()
    handle = stack.client.get_workflow_handle(call_workflow_id(call_id))
    snapshot = await handle.query("snapshot", result_type=CallSnapshot)
    bridge = stack.bridge_of(snapshot.bridge_id or "")
    if bridge is None:
        return
    live.say("demo", f"kill -9 {bridge.pid}: the bridge that holds the call is gone", "bold red")
    bridge.kill()


async def _record(client: Client, call_id: str) -> CallRecord:
    handle = client.get_workflow_handle(call_workflow_id(call_id))
    snapshot = await handle.query("snapshot", result_type=CallSnapshot)
    timeline = await handle.query("timeline", 0, result_type=list[TimelineEntry])
    return CallRecord(snapshot=snapshot, timeline=tuple(timeline))


def _report(console: Console, client: Client, record: CallRecord, result: LabResult) -> None:
    console.print()
    console.print(header(record.snapshot))
    console.print()
    console.print(metrics_table(record.snapshot.metrics))
    console.print()
    replies = ", ".join(f"{ms} ms" for ms in result.reply_ms) or "none"
    stops = ", ".join(f"{u.stop_ms} ms" for u in result.utterances if u.stop_ms is not None) or "none"
    rows = [("At the caller's ear", f"replies after {replies}; interrupted agent silent after {stops}")]
    rows.append(("Recording", f"{result.recording} (caller left, agent right)"))
    for entry in record.timeline:
        if isinstance(entry.event, SessionClosed) and entry.event.recording:
            rows.append(("", f"{entry.event.recording} (the bridge's own, session {entry.event.session})"))
    rows.append(("Temporal's UI", ui_url(client, call_workflow_id(record.snapshot.call.call_id))))
    for name, text in rows:
        console.print(Text.assemble((f"{name:<21}", "bold"), text), soft_wrap=True)


async def _check_ui(stack: LocalStack) -> None:
    """The link must open: the UI's API answers about a second after its page.

    Raises:
        StaylineError: it does not.
    """
    url = f"{stack.dev_server.ui_url}/api/v1/namespaces/default"
    async with aiohttp.ClientSession(timeout=aiohttp.ClientTimeout(total=2)) as http:
        for _ in range(50):
            with contextlib.suppress(aiohttp.ClientError, TimeoutError):
                async with http.get(url) as answer:
                    if answer.status == 200:
                        return
            await asyncio.sleep(0.2)
    raise StaylineError("Temporal's UI does not answer.", fix=f"See {stack.dev_server.log_file}.")


@contextmanager
def _step(console: Console, what: str) -> Iterator[None]:
    begun = time.monotonic()
    with console.status(f"Starting {what} …"):
        yield
    console.print(f"[green]✓[/green] {what} [dim]({time.monotonic() - begun:.1f} s)[/dim]")

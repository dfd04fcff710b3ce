"""A whole Stayline as real processes, with callers by the dozen, and a network between its parts that can fail.

    async with fleet(folder) as town:
        await town.calls(20, over=10)
        await town.collect()
    report = audit(folder)

The test's process plays vendors, carrier, callers and network. All parts reach one another through links
(`town.links`), each of which can be cut, slowed and broken: `carrier-bridge`, `bridge-temporal`, `worker-temporal`,
`bridge-vendors`, `worker-carrier`. What everybody saw is written to ledgers in the folder, for the auditor.
"""

from __future__ import annotations

import asyncio
import contextlib
import dataclasses
import os
import random
import signal
from collections.abc import AsyncIterator, Callable
from contextlib import AsyncExitStack, asynccontextmanager
from pathlib import Path
from typing import Final, Literal

import aiohttp
from temporalio.client import Client

from stayline.agent import Agent
from stayline.commands.local import LabAccount
from stayline.commands.processes import Child
from stayline.dev_server import DevServer
from stayline.errors import StaylineError
from stayline.lab.call import Behaviour, DialOutcome, LabCall
from stayline.lab.callee import Callee
from stayline.lab.carrier import LabCarrier
from stayline.lab.events import LabEvent
from stayline.outbound import place_call
from stayline.ports import free_port
from stayline.settings import Settings
from stayline.temporal import connect, prepare_namespace
from tests.chaos import agents, ledger
from tests.chaos.balancer import Balancer
from tests.chaos.callers import Caller, Wish, wishes
from tests.chaos.clock import clock
from tests.chaos.collect import collect, look_at
from tests.chaos.ledger import Ledger
from tests.chaos.link import Address, Link
from tests.chaos.processes import READY, Processes
from tests.chaos.vendors import Vendors

AGENTS: Final = (f"{agents.__file__}:agent", f"{agents.__file__}:voice")
HOUSE: Final = "+15550100002"
RINGING: Final = 75.0
"""Seconds that a caller lets it ring."""
LONGEST: Final = 180.0
"""Seconds after which a call is ended by the test, and the auditor told."""
OUTBOUND: Final = 0.12  #: share of the calls that we place
REALTIME: Final = 0.25  #: share of the callers who talk with a voice-to-voice model

Front = Literal["balancer", "shared"]


class Fleet:
    """What a test needs of it. Made by `fleet`."""

    def __init__(
        self, folder: Path, settings: Settings, front: Front, seed: int, fake_clock: bool, extra: dict[str, str]
    ) -> None:
        self.folder = folder
        self.settings = settings
        self.seed = seed
        self.agents = list(AGENTS)
        self.realtime = REALTIME
        self.behaviour = Behaviour(say_aloud=False, dials={"+15550100099": DialOutcome("completed", 0.5, 1.0)})
        self.callers: list[Caller] = []
        self.lab_calls: list[LabCall] = []
        self.links: dict[str, list[Link]] = {}
        self._awaited: dict[str, asyncio.Future[LabCall]] = {}  #: calls that we place, by number
        self.vendors: Vendors
        self.carrier: LabCarrier
        self.client: Client
        self.temporal: DevServer
        self._front = front
        self._extra = extra
        self._luck = random.Random(f"{seed} callers")
        self.clock = clock(folder) if fake_clock else None  #: of bridges and workers
        self._account = LabAccount.of(folder)
        self._balancer = Balancer()
        self._shared_port = free_port()
        self._carrier_ledger = Ledger(folder / ledger.CARRIER)
        self._callers_ledger = Ledger(folder / ledger.CALLERS)
        self._faults = Ledger(folder / ledger.FAULTS)
        self._seen = Ledger(folder / ledger.PROCESSES)
        self.processes = Processes(folder, self._environment, self.note)

    # --- its parts ---

    @property
    def bridges(self) -> dict[str, Child]:
        """Those that run, by name."""
        return self.processes.alive("b")

    @property
    def workers(self) -> dict[str, Child]:
        return self.processes.alive("w")

    def note(self, kind: str, what: str, *, end: bool = False, **more: object) -> None:
        """A line in the faults' ledger: a fault begins (or, with `end`, is over from here on)."""
        self._faults.write(kind, what=what, end=end, **more)

    async def start_bridge(self, name: str = "", **environment: str) -> str:
        """Start one; returns its name when it takes calls."""
        name = name or f"b{len([n for n in self.processes.children if n.startswith('b')]) + 1}"
        if self._front == "balancer":
            port = self._balancer.members.get(name, ("", free_port()))[1]
        else:
            port = self._shared_port
        own = {"STAYLINE_LISTEN_ADDR": f"127.0.0.1:{port}", "STAYLINE_BRIDGE_ID": name}
        child = await self.processes.start(name, self._command("serve"), **own, **environment)
        await self.processes.says(name, "bridge_started")
        await _warm(self.processes.children[name], port)
        if self._front == "balancer":
            self._balancer.members[name] = ("127.0.0.1", port)
        self._seen.write("baseline", name=name, **await look_at(child, port))
        self.note("started", name, end=True)
        return name

    async def start_worker(self, name: str = "", **environment: str) -> str:
        """Start one; returns its name when it polls."""
        name = name or f"w{len([n for n in self.processes.children if n.startswith('w')]) + 1}"
        await self.processes.start(name, self._command("worker"), **environment)
        await self.processes.says(name, "worker_started")
        self.note("started", name, end=True)
        return name

    def kill_bridge(self, name: str) -> None:
        self.processes.kill(name)

    kill_worker = kill_bridge

    async def stop_bridge(self, name: str) -> int:
        return await self.processes.stop(name)

    stop_worker = stop_bridge

    async def kill_temporal(self, away: float) -> None:
        """SIGKILL, and back after so many seconds with its data."""
        self.note("kill", "temporal")
        await self.temporal.kill()
        await asyncio.sleep(away)
        await self.temporal.start()
        self.note("started", "temporal", end=True)

    def freeze_temporal(self) -> None:
        pid = self.temporal.pid
        if pid:
            self.note("freeze", "temporal")
            os.kill(pid, signal.SIGSTOP)

    def thaw_temporal(self) -> None:
        pid = self.temporal.pid
        if pid:
            os.kill(pid, signal.SIGCONT)
            self.note("thaw", "temporal", end=True)

    def repeat_webhooks(self, repeats: bool) -> None:
        """Of the calls that begin from now on."""
        self.behaviour = dataclasses.replace(self.behaviour, repeats=repeats)

    # --- calls ---

    async def calls(self, count: int, over: float = 0.0, exchanges: tuple[int, int] = (2, 4)) -> None:
        """Have so many people call, begun evenly over some seconds; returns when the last call is over."""
        async with asyncio.TaskGroup() as group:
            for number in range(count):
                caller = self._new_caller(wishes(self._luck, exchanges))
                group.create_task(self._live(caller, number * over / max(1, count), self._luck.random() < OUTBOUND))

    async def traffic(self, at_once: int, least: int, most: int, work: asyncio.Task[None]) -> None:
        """Keep so many callers on the line until some work is done, and `least` have called; then see them out.

        Args:
            most: after so many nobody calls any more, whatever the work does.
        """
        begun, living = 0, set[asyncio.Task[None]]()
        try:
            while begun < most and (begun < least or not work.done()):
                if len(living) < at_once:
                    begun += 1
                    caller = self._new_caller(wishes(self._luck, (3, 7)))
                    is_called = self._luck.random() < OUTBOUND
                    living.add(asyncio.create_task(self._live(caller, 0, is_called)))
                    await asyncio.sleep(self._luck.uniform(0.1, 0.5))
                else:
                    _, living = await asyncio.wait(living, return_when=asyncio.FIRST_COMPLETED)
            await asyncio.gather(*living, work)
        finally:
            for task in living:
                task.cancel()

    async def call(self, *plan: Wish) -> Caller:
        """One caller with a plan of its own, who has dialled; `town.lab_calls[-1]` is the call."""
        caller = self._new_caller(list(plan))
        await self._dial(caller)
        return caller

    async def talking(self, count: int, patience: float = 60.0) -> None:
        """Wait until so many calls at once have a stream and a conversation."""
        await self.until(lambda: self.in_conversation >= count, patience)

    @property
    def in_conversation(self) -> int:
        by_sid = {call.sid: call for call in self.lab_calls}
        return sum(c.talking and c.sid in by_sid and not by_sid[c.sid].over for c in self.callers)

    async def until(self, condition: Callable[[], bool], patience: float = 60.0) -> None:
        async with asyncio.timeout(patience):
            while True:
                if condition():
                    return
                await asyncio.sleep(0.05)

    async def collect(self) -> None:
        """Wait until every call has come to its end everywhere, and write down what is left to see."""
        for name in self.processes.died:
            self._seen.write("died", name=name)
        ports = {name: address[1] for name, address in self._balancer.members.items()}
        await collect(self.folder, self.client, self.bridges, ports, self._seen)

    def _new_caller(self, plan: list[Wish]) -> Caller:
        name = f"c{len(self.callers) + 1}"
        caller = Caller(name, plan, self._callers_ledger, random.Random(f"{self.seed} {name}"))
        self.callers.append(caller)
        return caller

    async def _live(self, caller: Caller, after: float, is_called: bool) -> None:
        await asyncio.sleep(after)
        call = await (self._be_called(caller) if is_called else self._dial(caller))
        if call is None:
            return
        loop = asyncio.get_running_loop()
        given_up = loop.time() + LONGEST
        ringing = loop.time() + RINGING
        while not call.over and loop.time() < given_up:
            if call.answered_at is None and loop.time() > ringing:
                self._callers_ledger.write("hangs_up", call=call.sid, caller=caller.name, why="unanswered")
                call.hang_up("caller")
            await asyncio.sleep(0.2)
        if not call.over:
            self._callers_ledger.write("hangs_up", call=call.sid, caller=caller.name, why="endless")
            call.hang_up("timeout")
        await call.wait()

    async def _dial(self, caller: Caller) -> LabCall:
        self._set_behaviour()
        agent = self._agent(caller)
        called = agent.numbers[0] if agent.numbers else HOUSE
        call = await self.carrier.place_call(self._number(caller), called, caller=caller)
        return self._begun(caller, call, "")

    async def _be_called(self, caller: Caller) -> LabCall | None:
        """We place the call. None: it never rang, and the auditor will ask why."""
        self._set_behaviour()
        number, call_id = self._number(caller), f"out-{self.seed}-{caller.name}"
        placed: asyncio.Future[LabCall] = asyncio.get_running_loop().create_future()
        self._awaited[number] = placed
        self.carrier.callees[number] = Callee(caller=lambda: caller)
        self._callers_ledger.write("expects", call=call_id, caller=caller.name)
        try:
            async with asyncio.timeout(LONGEST):
                await self._place(self._agent(caller), number, call_id)
                call = await placed
        except TimeoutError:
            return None
        return self._begun(caller, call, call_id)

    async def _place(self, agent: Agent, number: str, call_id: str) -> None:
        while True:
            try:
                await place_call(self.client, self.settings, agent, number, from_number=HOUSE, call_id=call_id)
                return
            except StaylineError as error:
                if not error.retryable:
                    raise
                await asyncio.sleep(0.5)

    def _begun(self, caller: Caller, call: LabCall, call_id: str) -> LabCall:
        caller.sid = call.sid
        self.lab_calls.append(call)
        self._callers_ledger.write("begins", call=call.sid, caller=caller.name, ours=call_id)
        return call

    def _set_behaviour(self) -> None:
        """Half of the calls go on by themselves when a stream breaks, the others wait to be fetched."""
        on_break: Literal["next", "wait"] = "next" if self._luck.random() < 0.5 else "wait"
        self.carrier.behaviour = dataclasses.replace(self.behaviour, on_break=on_break)

    def _agent(self, caller: Caller) -> Agent:
        voice = random.Random(f"{self.seed} {caller.name} agent").random() < self.realtime
        return agents.voice if voice else agents.agent

    def _number(self, caller: Caller) -> str:
        return f"+1555{1000000 + int(caller.name[1:])}"

    # --- how it is put together ---

    def _command(self, what: str) -> list[str]:
        return [what, *(word for agent in self.agents for word in ("--agent", agent))]

    def _environment(self, name: str, command: str) -> dict[str, str]:
        temporal = "bridge-temporal" if command == "serve" else "worker-temporal"
        vendors = dict(zip(self.vendors.all, self.links["bridge-vendors"], strict=True))
        return {
            agents.FOLDER: str(self.folder),
            "STAYLINE_DATA_DIR": str(self.folder.resolve()),
            "STAYLINE_PUBLIC_URL": f"http://{self.links['carrier-bridge'][0].address}",
            "STAYLINE_REUSE_PORT": "true" if self._front == "shared" else "false",
            "STAYLINE_CARRIER": "lab",
            "STAYLINE_LOG_FORMAT": "json",
            "STAYLINE_STREAM_IDLE_TIMEOUT": "4",
            "STAYLINE_DRAIN_TIMEOUT": "20",
            "STAYLINE_MAX_LOOP_LAG_MS": "0",  # callers come to be disturbed, not to be sent away
            "TEMPORAL_ADDRESS": self.links[temporal][0].address,
            "TWILIO_ACCOUNT_SID": self._account.account_sid,
            "TWILIO_AUTH_TOKEN": self._account.auth_token,
            "TWILIO_PHONE_NUMBER": HOUSE,
            "TWILIO_BASE_URL": f"http://{self.links['worker-carrier'][0].address}",
            "OMP_NUM_THREADS": "1",
            **self.vendors.environment({n: f"http://{link.address}" for n, link in vendors.items()}),
            **(self.clock.environment if self.clock else {}),
            **self._extra,
        }

    async def _link(self, stack: AsyncExitStack, name: str, targets: Callable[[], list[Address]]) -> Link:
        link = await stack.enter_async_context(Link(targets))
        self.links.setdefault(name, []).append(link)
        return link

    async def open(self, stack: AsyncExitStack, bridges: int, workers: int) -> None:
        """Start everything; the stack ends it."""
        for book in (self._carrier_ledger, self._callers_ledger, self._faults, self._seen):
            stack.callback(book.close)
        self.note("seed", str(self.seed), end=True)
        self.vendors = await stack.enter_async_context(Vendors())
        front = await stack.enter_async_context(Link(self._front_targets))
        self.links["carrier-bridge"] = [front]
        url = f"http://{front.address}"
        self.settings = self.settings.model_copy(update={"public_url": url})
        self.carrier = await stack.enter_async_context(
            LabCarrier(
                url,
                self._account.account_sid,
                self._account.auth_token,
                behaviour=self.behaviour,
                on_event=self._carrier_event,
            )
        )
        self.carrier.on_order = self._ordered
        rest = _address(self.carrier.rest_url)
        await self._link(stack, "worker-carrier", lambda: [rest])
        for fake in self.vendors.all.values():
            at = _address(fake.url)
            await self._link(stack, "bridge-vendors", lambda at=at: [at])  # type: ignore[misc]
        self.temporal = await stack.enter_async_context(DevServer(self.settings, port=0, ui=False))
        self.client = await connect(self.settings, address=self.temporal.address, patience=10)
        await prepare_namespace(self.client, 30)
        server = _address(self.temporal.address)
        for name in ("bridge-temporal", "worker-temporal"):
            await self._link(stack, name, lambda: [server])
        stack.push_async_callback(self.processes.end)
        watch = asyncio.create_task(self._balancer.watch())
        stack.push_async_callback(_ended, watch)
        async with asyncio.TaskGroup() as group:
            for number in range(workers):
                group.create_task(self.start_worker(f"w{number + 1}"))
            for number in range(bridges):
                group.create_task(self.start_bridge(f"b{number + 1}"))

    def _front_targets(self) -> list[Address]:
        return list(self._balancer.targets()) if self._front == "balancer" else [("127.0.0.1", self._shared_port)]

    def _ordered(self, call: LabCall) -> None:
        placed = self._awaited.get(call.to_number)
        if placed is not None and not placed.done():
            placed.set_result(call)

    def _carrier_event(self, event: LabEvent) -> None:
        if event.kind == "mark":  # five a second and call
            return
        data = {key: value for key, value in event.data.items() if key not in ("marks", "verb")}
        verb = event.data.get("verb")
        if verb is not None:
            data |= {name: getattr(verb, name) for name in ("text", "to", "url") if hasattr(verb, name)}
        self._carrier_ledger.write(event.kind, call=event.call_sid, detail=event.detail, **data)


def _address(url: str) -> Address:
    host, _, port = url.removeprefix("http://").rpartition(":")
    return host, int(port)


async def _warm(child: Child, port: int) -> None:
    """Wait until the bridge takes calls and has loaded all that the first one needs."""
    url = f"http://127.0.0.1:{port}/ready?warm"
    async with asyncio.timeout(READY), aiohttp.ClientSession(timeout=aiohttp.ClientTimeout(total=2)) as http:
        while True:
            with contextlib.suppress(aiohttp.ClientError, TimeoutError):
                async with http.get(url) as answer:
                    if answer.status == 200:
                        return
            child.check()
            await asyncio.sleep(0.1)


async def _ended(task: asyncio.Task[None]) -> None:
    task.cancel()
    with contextlib.suppress(asyncio.CancelledError):
        await task


@asynccontextmanager
async def fleet(
    folder: Path,
    *,
    bridges: int = 2,
    workers: int = 2,
    front: Front = "balancer",
    seed: int = 1,
    fake_clock: bool = False,
    **environment: str,
) -> AsyncIterator[Fleet]:
    """Start a fleet.

    Args:
        folder: for its data, and for the evidence.
        front: `balancer`: each bridge has a port of its own, and who asks is sent to one that is ready, in turn;
            `shared`: all have one port (SO_REUSEPORT).
        fake_clock: bridges and workers have a wall clock that `town.clock` sets, where libfaketime is installed.
        seed: of everything random.
        environment: more of it, of every process.
    """
    settings = Settings(data_dir=folder, carrier="lab")
    town = Fleet(folder, settings, front, seed, fake_clock, environment)
    async with AsyncExitStack() as stack:
        await town.open(stack, bridges, workers)
        yield town

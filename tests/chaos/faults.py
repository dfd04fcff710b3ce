"""What goes wrong in a run: each kind once, at moments that the seed decides.

    schedule = plan(seed, [*PROCESSES, *NETWORK])
    await torment(town, schedule)

The same seed gives the same schedule: kinds, order, pauses, how long each lasts, and which of several it strikes.
Every fault writes down when it begins and when it is over; what it has broken it puts right again.
"""

from __future__ import annotations

import asyncio
import contextlib
import dataclasses
import random
import resource
from collections.abc import Awaitable, Callable, Iterator, Sequence
from typing import Final

from stayline.commands.processes import Child
from tests.chaos.fleet import Fleet
from tests.chaos.link import Link
from tests.fakes import misbehaviour
from tests.fakes.misbehaviour import Misbehaviour

LINKS: Final = ("carrier-bridge", "bridge-temporal", "worker-temporal", "bridge-vendors", "worker-carrier")
ROLES: Final = ("stt", "llm", "tts", "realtime")
MISDEEDS: Final[dict[str, Misbehaviour]] = {
    "refuse": misbehaviour.reset(),
    "hang": misbehaviour.hang(),
    "429": misbehaviour.rate_limited(retry_after=1),
    "disconnect": misbehaviour.disconnect(after=2),
    "garbage": misbehaviour.garbage(),
}
DELAY: Final = 0.5  #: seconds, of a slow link

PROCESSES: Final = tuple(
    f"{part} {what}" for part in ("bridge", "worker", "temporal") for what in ("killed", "frozen", "restarted")
)
NETWORK: Final = (*(f"{link} cut" for link in LINKS), *(f"{link} slow" for link in LINKS), "links broken")
VENDORS: Final = tuple(f"vendors {misdeed}" for misdeed in MISDEEDS)
CARRIER: Final = ("streams dropped", "stream silent", "webhooks repeated")
MACHINE: Final = ("disk full", "clock jump")
ALL: Final = (*PROCESSES, *NETWORK, *VENDORS, *CARRIER, *MACHINE)


@dataclasses.dataclass(frozen=True, slots=True)
class Step:
    """One fault of a schedule."""

    kind: str
    pause: float  #: seconds before it
    seconds: float  #: how long it lasts, where that can be said
    luck: float  #: in [0, 1): which of several it strikes

    def choose(self, among: Sequence[str]) -> str:
        return sorted(among)[int(self.luck * len(among))]


PAUSE: Final = (0.5, 2.0)  #: seconds between two faults


def plan(seed: int, kinds: Sequence[str], *, rounds: int = 1) -> list[Step]:
    """A schedule: each kind once a round, in a random order."""
    luck = random.Random(f"{seed} faults")
    steps: list[Step] = []
    for _ in range(rounds):
        order = list(kinds)
        luck.shuffle(order)
        steps += [Step(k, luck.uniform(*PAUSE), luck.uniform(2.0, 4.0), luck.random()) for k in order]
    return steps


async def torment(town: Fleet, schedule: Sequence[Step], *, while_talking: int = 2) -> None:
    """Do it all, each fault while at least some calls are in conversation, if there are still to be any."""
    for step in schedule:
        await asyncio.sleep(step.pause)
        with contextlib.suppress(TimeoutError):  # the last callers may have gone
            await town.talking(while_talking, 10.0)
        await fault_of(step.kind)(town, step)


def fault_of(kind: str) -> Callable[[Fleet, Step], Awaitable[None]]:
    """Raises: ValueError: there is no such kind."""
    part, _, what = kind.rpartition(" ")
    if kind in _FAULTS:
        return _FAULTS[kind]
    if part in LINKS and what in ("cut", "slow"):
        return _cut if what == "cut" else _slow
    if part == "vendors" and what in MISDEEDS:
        return _vendors
    raise ValueError(f"There is no fault {kind!r}. There are {', '.join(ALL)}.")


# --- processes -------------------------------------------------------------------------------------------


async def _bridge_killed(town: Fleet, step: Step) -> None:
    name = step.choose(list(town.bridges))
    town.kill_bridge(name)
    await asyncio.sleep(step.seconds / 2)
    await town.start_bridge(name)


async def _bridge_frozen(town: Fleet, step: Step) -> None:
    await _freeze(town, step.choose(list(town.bridges)), step.seconds)


async def _bridge_restarted(town: Fleet, step: Step) -> None:
    name = step.choose(list(town.bridges))
    await town.stop_bridge(name)
    await town.start_bridge(name)


async def _worker_killed(town: Fleet, step: Step) -> None:
    name = step.choose(list(town.workers))
    town.kill_worker(name)
    await asyncio.sleep(step.seconds / 2)
    await town.start_worker(name)


async def _worker_frozen(town: Fleet, step: Step) -> None:
    await _freeze(town, step.choose(list(town.workers)), step.seconds)


async def _worker_restarted(town: Fleet, step: Step) -> None:
    name = step.choose(list(town.workers))
    await town.stop_worker(name)
    await town.start_worker(name)


async def _temporal_killed(town: Fleet, step: Step) -> None:
    await town.kill_temporal(step.seconds)


async def _temporal_frozen(town: Fleet, step: Step) -> None:
    town.freeze_temporal()
    await asyncio.sleep(step.seconds)
    town.thaw_temporal()


async def _temporal_restarted(town: Fleet, step: Step) -> None:
    town.note("stop", "temporal")
    await town.temporal.restart()
    town.note("started", "temporal", end=True)


async def _freeze(town: Fleet, name: str, seconds: float) -> None:
    town.processes.freeze(name)
    await asyncio.sleep(seconds)
    town.processes.thaw(name)


# --- network ---------------------------------------------------------------------------------------------


async def _cut(town: Fleet, step: Step) -> None:
    name = step.kind.rpartition(" ")[0]
    with _noted(town, "cut", name), _each(town.links[name], Link.cut):
        await asyncio.sleep(step.seconds)


async def _slow(town: Fleet, step: Step) -> None:
    name = step.kind.rpartition(" ")[0]
    with _noted(town, "slow", name), _each(town.links[name], _slow_down):
        await asyncio.sleep(step.seconds)


async def _broken(town: Fleet, step: Step) -> None:
    """What is open on a link breaks; new connections are taken."""
    for name in LINKS:
        if name != "carrier-bridge":  # that is `streams dropped`
            town.note("broken", name, end=True)
            for link in town.links[name]:
                link.reset()
        await asyncio.sleep(step.seconds / len(LINKS))


def _slow_down(link: Link) -> None:
    link.delay = DELAY


@contextlib.contextmanager
def _each(links: Sequence[Link], do: Callable[[Link], None]) -> Iterator[None]:
    for link in links:
        do(link)
    try:
        yield
    finally:
        for link in links:
            link.heal()


@contextlib.contextmanager
def _noted(town: Fleet, kind: str, what: str) -> Iterator[None]:
    town.note(kind, what)
    try:
        yield
    finally:
        town.note("healed", what, end=True)


# --- vendors and carrier ---------------------------------------------------------------------------------


async def _vendors(town: Fleet, step: Step) -> None:
    """The first vendor of one role goes wrong, then that of the next."""
    misdeed = step.kind.rpartition(" ")[2]
    start = int(step.luck * len(ROLES))
    for role in ROLES[start:] + ROLES[:start]:
        with _noted(town, misdeed, role):
            town.vendors.strike(role, MISDEEDS[misdeed])
            try:
                await asyncio.sleep(step.seconds / 2)
            finally:
                town.vendors.heal(role)


async def _streams_dropped(town: Fleet, step: Step) -> None:
    """Half of the websockets break in one moment, with no `stop` and no close frame."""
    live = [call for call in town.lab_calls if not call.over]
    for call in live[:: 2 if step.luck < 0.5 else 1]:
        call.drop_stream()
    town.note("dropped", "streams", end=True)


async def _stream_silent(town: Fleet, step: Step) -> None:
    """The carrier's end of one stream dies without a word."""
    live = [call for call in town.lab_calls if not call.over]
    for call in live[int(step.luck * len(live)) :][:1]:
        call.fall_silent()
    town.note("silent", "stream", end=True)


async def _webhooks_repeated(town: Fleet, step: Step) -> None:
    """Every webhook comes twice for a while, and every status callback too, out of order."""
    with _noted(town, "repeated", "webhooks"):
        town.repeat_webhooks(True)
        await asyncio.sleep(3 * step.seconds)
        town.repeat_webhooks(False)


# --- machine ---------------------------------------------------------------------------------------------


async def _disk_full(town: Fleet, step: Step) -> None:
    """Bridges and workers cannot write a byte more to any file: records, spool, recordings, logs."""
    with _noted(town, "full", "disk"), _no_writes([*town.bridges.values(), *town.workers.values()]):
        await asyncio.sleep(step.seconds)


@contextlib.contextmanager
def _no_writes(children: Sequence[Child]) -> Iterator[None]:
    """RLIMIT_FSIZE of running processes: a write fails with EFBIG where a full disk says ENOSPC."""
    former: dict[int, tuple[int, int]] = {}
    for child in children:
        if child.pid is not None:
            former[child.pid] = resource.prlimit(child.pid, resource.RLIMIT_FSIZE)
            resource.prlimit(child.pid, resource.RLIMIT_FSIZE, (0, former[child.pid][1]))
    try:
        yield
    finally:
        for pid, limits in former.items():
            with contextlib.suppress(ProcessLookupError):
                resource.prlimit(pid, resource.RLIMIT_FSIZE, limits)


async def _clock_jump(town: Fleet, step: Step) -> None:
    """The wall clock of bridges and workers jumps an hour ahead, and later back; see `town.clock`."""
    if town.clock is None:
        town.note("skipped", "clock jump: libfaketime is not installed", end=True)
        return
    with _noted(town, "jumped", "clock"):
        town.clock.jump(3600)
        await asyncio.sleep(step.seconds)
        town.clock.jump(-1800)
        await asyncio.sleep(step.seconds / 2)
        town.clock.jump(0)


_FAULTS: Final[dict[str, Callable[[Fleet, Step], Awaitable[None]]]] = {
    "bridge killed": _bridge_killed,
    "bridge frozen": _bridge_frozen,
    "bridge restarted": _bridge_restarted,
    "worker killed": _worker_killed,
    "worker frozen": _worker_frozen,
    "worker restarted": _worker_restarted,
    "temporal killed": _temporal_killed,
    "temporal frozen": _temporal_frozen,
    "temporal restarted": _temporal_restarted,
    "links broken": _broken,
    "streams dropped": _streams_dropped,
    "stream silent": _stream_silent,
    "webhooks repeated": _webhooks_repeated,
    "disk full": _disk_full,
    "clock jump": _clock_jump,
}
